/*
kind: incremental_by_time
owner: bench@demo.example
description: Events by day, tenant and name.
grain: [event_date, tenant_id, event_name]
time_column: event_date
checks:
  - not_null: [event_date, tenant_id, event_name]
*/
SELECT
    CAST(occurred_at AS DATE) AS event_date,
    tenant_id,
    event_name,
    count(*) AS events,
    count(DISTINCT user_id) AS users,
    approx_count_distinct(user_id) AS users_approx,
    CAST(sum(amount) AS DECIMAL(18, 2)) AS amount
FROM raw.bench_events
GROUP BY 1, 2, 3
