/*
kind: full
owner: crm@demo.example
description: Deals by the month they were created, pipeline and present stage.
grain: [created_month, pipeline, stage]
time_column: created_month
checks:
  - not_null: [created_month, pipeline, stage, deals]
  - unique: [created_month, pipeline, stage]
*/
SELECT
    CAST(date_trunc('month', created_date) AS DATE) AS created_month,
    coalesce(pipeline, '(none)') AS pipeline,
    stage,
    count(*) AS deals,
    count(*) FILTER (WHERE is_won) AS won_deals,
    count(*) FILTER (WHERE is_lost) AS lost_deals,
    CAST(coalesce(sum(amount), 0) AS DECIMAL(18, 2)) AS amount,
    CAST(coalesce(sum(amount) FILTER (WHERE is_won), 0) AS DECIMAL(18, 2)) AS won_amount,
    CAST(coalesce(sum(days_to_close), 0) AS BIGINT) AS days_to_close_sum
FROM core.deals
WHERE created_date IS NOT NULL
GROUP BY CAST(date_trunc('month', created_date) AS DATE), coalesce(pipeline, '(none)'), stage
