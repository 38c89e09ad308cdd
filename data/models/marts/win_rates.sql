/*
kind: full
owner: crm@demo.example
description: >
  Closed deals by the month they closed, source, owner and segment: how many were won, for how much, how long that
  took, and the share that was won. A closed deal without a date is in no month: the check closed_deal_has_date of
  core.deals warns of it, and marts.pipeline counts it.
grain: [closed_month, source, owner_id, segment]
time_column: closed_month
checks:
  - not_null: [closed_month, source, owner_id, segment, closed_deals]
  - unique: [closed_month, source, owner_id, segment]
*/
SELECT
    CAST(date_trunc('month', closed_date) AS DATE) AS closed_month,
    source,
    coalesce(owner_id, '(none)') AS owner_id,
    coalesce(segment, '(none)') AS segment,
    count(*) AS closed_deals,
    count(*) FILTER (WHERE is_won) AS won_deals,
    CAST(coalesce(sum(amount), 0) AS DECIMAL(18, 2)) AS closed_amount,
    CAST(coalesce(sum(amount) FILTER (WHERE is_won), 0) AS DECIMAL(18, 2)) AS won_amount,
    CAST(coalesce(sum(days_to_close) FILTER (WHERE is_won), 0) AS BIGINT) AS days_to_win_sum,
    CAST(count(*) FILTER (WHERE is_won) AS DOUBLE) / count(*) AS win_rate
FROM core.deals
WHERE closed_date IS NOT NULL AND (is_won OR is_lost)
GROUP BY
    CAST(date_trunc('month', closed_date) AS DATE), source, coalesce(owner_id, '(none)'), coalesce(segment, '(none)')
