/*
kind: full
owner: product@demo.example
description: >
  Actors by the day they were first seen, and how many were there again. n_day: on that day after it; unbounded:
  on that day or later, so far; bracket: on any day from first_day to last_day. Only days that have come;
  is_complete says whether the last of them is over.
grain: [kind, cohort_date, first_day]
time_column: cohort_date
checks:
  - not_null: [kind, cohort_date, first_day, cohort_actors, actors, retention_rate, is_complete]
  - unique: [kind, cohort_date, first_day]
*/
WITH starts AS (
    SELECT actor_id, event_date FROM core.usage_events WHERE actor_id IS NOT NULL
), returns AS (
    SELECT DISTINCT actor_id, event_date FROM core.usage_events WHERE actor_id IS NOT NULL
), newest AS (
    SELECT least(max(event_date), max(received_date)) AS last_date FROM core.usage_events
), cohorts AS (
    SELECT actor_id, min(event_date) AS cohort_date FROM starts GROUP BY actor_id
), days AS (
    SELECT c.actor_id, c.cohort_date, r.event_date - c.cohort_date AS days
    FROM cohorts AS c
    JOIN returns AS r ON r.actor_id = c.actor_id AND r.event_date >= c.cohort_date
), ends AS (
    SELECT actor_id, cohort_date, max(days) AS days FROM days GROUP BY actor_id, cohort_date
), numbers AS (
    SELECT day.cohort_date - first.cohort_date AS n
    FROM (SELECT CAST(t.moment AS DATE) AS cohort_date FROM generate_series(
        TIMESTAMP '2000-01-01', TIMESTAMP '2000-01-31', INTERVAL 1 DAY) AS t(moment)) AS day
    CROSS JOIN (SELECT DATE '2000-01-01' AS cohort_date) AS first
), spans AS (
    SELECT 'n_day' AS kind, n AS first_day, n AS last_day FROM numbers
    UNION ALL SELECT 'unbounded', n, NULL FROM numbers
    UNION ALL SELECT * FROM (VALUES ('bracket', 0, 0), ('bracket', 1, 3), ('bracket', 4, 7), ('bracket', 8, 14),
        ('bracket', 15, 30)) AS brackets(kind, first_day, last_day)
), counted AS (
    SELECT 'n_day' AS kind, cohort_date, days AS first_day, count(*) AS actors FROM days GROUP BY cohort_date, days
    UNION ALL
    SELECT 'unbounded', e.cohort_date, n.n, count(*)
    FROM ends AS e JOIN numbers AS n ON n.n <= e.days GROUP BY e.cohort_date, n.n
    UNION ALL
    SELECT s.kind, d.cohort_date, s.first_day, count(DISTINCT d.actor_id)
    FROM days AS d JOIN spans AS s ON s.kind = 'bracket' AND d.days BETWEEN s.first_day AND s.last_day
    GROUP BY s.kind, d.cohort_date, s.first_day
), sizes AS (SELECT cohort_date, count(*) AS actors FROM cohorts GROUP BY cohort_date)
SELECT
    s.kind, c.cohort_date, CAST(s.first_day AS INTEGER) AS first_day, CAST(s.last_day AS INTEGER) AS last_day,
    c.actors AS cohort_actors,
    coalesce(k.actors, 0) AS actors, CAST(coalesce(k.actors, 0) AS DOUBLE) / nullif(c.actors, 0) AS retention_rate,
    coalesce(c.cohort_date + CAST(s.last_day AS INTEGER) < n.last_date, FALSE) AS is_complete
FROM sizes AS c CROSS JOIN newest AS n
JOIN spans AS s ON c.cohort_date + CAST(s.first_day AS INTEGER) <= n.last_date
LEFT JOIN counted AS k ON k.kind = s.kind AND k.cohort_date = c.cohort_date AND k.first_day = s.first_day
