MODEL (
  name marts.usage_daily,
  kind INCREMENTAL_BY_TIME_RANGE (time_column event_date, batch_size 1000),
  cron '@daily',
  grain (event_date, tenant_id, event_name),
  audits (not_null(columns := (event_date, tenant_id, event_name)))
);
SELECT
  CAST(occurred_at AS DATE) AS event_date,
  tenant_id::TEXT AS tenant_id,
  event_name::TEXT AS event_name,
  count(*)::BIGINT AS events,
  count(DISTINCT user_id)::BIGINT AS users,
  approx_count_distinct(user_id)::BIGINT AS users_approx,
  CAST(sum(amount) AS DECIMAL(18, 2)) AS amount
FROM raw.bench_events
WHERE occurred_at BETWEEN @start_ts AND @end_ts
GROUP BY 1, 2, 3
