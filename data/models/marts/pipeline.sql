/*
kind: full
owner: crm@demo.example
description: >
  Deals of all CRMs by the month they were created, pipeline, present stage, owner and segment. Ages of open deals
  count to the newest change in the CRM. weighted_amount is the open amount by win_chance: the share won of its source
  and pipeline's closed deals, of all if it has none. win_rate is the group's own. No amount counts 0.
grain: [created_month, source, pipeline, stage, owner_id, segment]
time_column: created_month
checks:
  - not_null: [created_month, source, pipeline, stage, deals]
  - unique: [created_month, source, pipeline, stage, owner_id, segment]
*/
WITH newest AS (
    SELECT CAST(greatest(max(created_at), max(updated_at)) AT TIME ZONE :timezone AS DATE) AS last_date
    FROM core.deals
), chances AS (
    SELECT
        source,
        coalesce(pipeline, '(none)') AS pipeline,
        CAST(CAST(count(*) FILTER (WHERE is_won) AS DOUBLE) / nullif(count(*), 0) AS DECIMAL(9, 6)) AS win_chance
    FROM core.deals
    WHERE is_won OR is_lost
    GROUP BY source, coalesce(pipeline, '(none)')
), overall AS (
    SELECT CAST(CAST(count(*) FILTER (WHERE is_won) AS DOUBLE) / nullif(count(*), 0) AS DECIMAL(9, 6)) AS win_chance
    FROM core.deals
    WHERE is_won OR is_lost
), deals AS (
    SELECT
        CAST(date_trunc('month', d.created_date) AS DATE) AS created_month,
        d.source, coalesce(d.pipeline, '(none)') AS pipeline, d.stage,
        coalesce(d.owner_id, '(none)') AS owner_id, coalesce(d.segment, '(none)') AS segment,
        d.is_won, d.is_lost, NOT d.is_won AND NOT d.is_lost AS is_open,
        d.amount IS NULL AS is_unvalued, coalesce(d.amount, 0) AS amount, d.days_to_close,
        greatest(n.last_date - d.created_date, 0) AS age_days
    FROM core.deals AS d
    CROSS JOIN newest AS n
    WHERE d.created_date IS NOT NULL
)
SELECT
    d.created_month, d.source, d.pipeline, d.stage, d.owner_id, d.segment,
    count(*) AS deals,
    count(*) FILTER (WHERE d.is_open) AS open_deals,
    count(*) FILTER (WHERE d.is_won) AS won_deals,
    count(*) FILTER (WHERE d.is_lost) AS lost_deals,
    count(*) FILTER (WHERE d.is_unvalued) AS deals_without_amount,
    CAST(sum(d.amount) AS DECIMAL(18, 2)) AS amount,
    CAST(coalesce(sum(d.amount) FILTER (WHERE d.is_open), 0) AS DECIMAL(18, 2)) AS open_amount,
    CAST(coalesce(sum(d.amount) FILTER (WHERE d.is_won), 0) AS DECIMAL(18, 2)) AS won_amount,
    min(coalesce(c.win_chance, o.win_chance)) AS win_chance,
    CAST(sum(d.amount * coalesce(c.win_chance, o.win_chance)) FILTER (WHERE d.is_open) AS DECIMAL(18, 2)) AS weighted_amount,
    CAST(coalesce(sum(d.days_to_close), 0) AS BIGINT) AS days_to_close_sum,
    CAST(coalesce(sum(d.age_days) FILTER (WHERE d.is_open), 0) AS BIGINT) AS open_age_days_sum,
    max(d.age_days) FILTER (WHERE d.is_open) AS oldest_open_days,
    CAST(count(*) FILTER (WHERE d.is_won) AS DOUBLE) / nullif(count(*) FILTER (WHERE d.is_won OR d.is_lost), 0) AS win_rate
FROM deals AS d
CROSS JOIN overall AS o
LEFT JOIN chances AS c ON c.source = d.source AND c.pipeline = d.pipeline
GROUP BY d.created_month, d.source, d.pipeline, d.stage, d.owner_id, d.segment
