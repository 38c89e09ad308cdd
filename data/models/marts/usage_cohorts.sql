/*
kind: full
owner: product@demo.example
description: >
  Actors by the week (and month) they were first seen in, and how many of them came back so many weeks (months)
  later. Weeks begin on Monday. Periods that have begun are all there, with zero where nobody came; the newest
  may not be over (is_complete).
grain: [period, cohort, periods_since]
checks:
  - not_null: [period, cohort, periods_since, cohort_actors, actors, retention_rate, is_complete]
  - unique: [period, cohort, periods_since]
*/
WITH active AS (
    SELECT DISTINCT
        actor_id,
        CAST(date_trunc('week', event_date) AS DATE) AS week,
        CAST(date_trunc('month', event_date) AS DATE) AS month
    FROM core.usage_events
    WHERE actor_id IS NOT NULL
), periods AS (
    SELECT DISTINCT 'week' AS period, actor_id, week AS begins FROM active
    UNION ALL
    SELECT DISTINCT 'month' AS period, actor_id, month AS begins FROM active
), seen AS (
    SELECT period, begins, min(begins) OVER (PARTITION BY period, actor_id) AS cohort FROM periods
), cells AS (
    SELECT period, cohort, begins, count(*) AS actors FROM seen GROUP BY period, cohort, begins
), cohorts AS (
    SELECT period, cohort, actors AS cohort_actors FROM cells WHERE begins = cohort
), calendar AS (
    SELECT DISTINCT t.period, CAST(date_trunc(t.period, d.day) AS DATE) AS begins
    FROM (VALUES ('week'), ('month')) AS t(period)
    CROSS JOIN marts.usage_stickiness AS d
), newest AS (
    SELECT least(max(event_date), max(received_date)) AS last_day FROM core.usage_events
)
SELECT
    c.period,
    c.cohort,
    CASE
        WHEN c.period = 'week' THEN CAST((k.begins - c.cohort) / 7 AS INTEGER)
        ELSE CAST(
            (extract(year FROM k.begins) - extract(year FROM c.cohort)) * 12
            + extract(month FROM k.begins) - extract(month FROM c.cohort) AS INTEGER
        )
    END AS periods_since,
    CAST(c.cohort_actors AS BIGINT) AS cohort_actors,
    CAST(coalesce(a.actors, 0) AS BIGINT) AS actors,
    CAST(coalesce(a.actors, 0) AS DOUBLE) / nullif(c.cohort_actors, 0) AS retention_rate,
    CASE
        WHEN c.period = 'week' THEN k.begins + 6 < n.last_day
        ELSE CAST(k.begins + INTERVAL 1 MONTH AS DATE) - 1 < n.last_day
    END AS is_complete
FROM cohorts AS c
JOIN calendar AS k ON k.period = c.period AND k.begins >= c.cohort
CROSS JOIN newest AS n
LEFT JOIN cells AS a ON a.period = c.period AND a.cohort = c.cohort AND a.begins = k.begins
