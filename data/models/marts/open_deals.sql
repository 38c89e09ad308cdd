/*
kind: full
owner: crm@demo.example
description: >
  Deals that were open at the end of a day, by where their lead came from and segment, for every day from the first
  deal's creation to the newest day that a deal was created or closed. A deal without an amount counts 0.
grain: [open_date, lead_source, segment]
time_column: open_date
checks:
  - not_null: [open_date, deals, amount]
  - unique: [open_date, lead_source, segment]
*/
WITH extent AS (
    SELECT min(created_date) AS first_date, greatest(max(created_date), max(closed_date)) AS last_date
    FROM core.deals
), days AS (
    SELECT CAST(t.moment AS DATE) AS open_date
    FROM extent AS e
    CROSS JOIN generate_series(e.first_date, e.last_date, INTERVAL 1 DAY) AS t(moment)
)
SELECT
    d.open_date, s.lead_source, s.segment,
    count(*) AS deals,
    CAST(sum(coalesce(s.amount, 0)) AS DECIMAL(18, 2)) AS amount
FROM days AS d
JOIN core.deals AS s
    ON s.created_date <= d.open_date AND (s.closed_date IS NULL OR s.closed_date > d.open_date)
GROUP BY d.open_date, s.lead_source, s.segment
