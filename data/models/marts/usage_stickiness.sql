/*
kind: full
owner: product@demo.example
description: >
  Different actors by day, and over the 7 and 28 days that end on it, and how many of a month's come on a day.
  From the first day with an event to the last that has come, quiet days included. Exact: an actor counts from a day on which
  it did something until the window has passed, or until its next such day takes over.
grain: [day]
time_column: day
checks:
  - not_null: [day, daily_actors, weekly_actors, monthly_actors]
  - unique: [day]
  - expression: {sql: "daily_actors <= weekly_actors AND weekly_actors <= monthly_actors", name: windows_nest}
*/
WITH active AS (
    SELECT DISTINCT actor_id, event_date FROM core.usage_events WHERE actor_id IS NOT NULL
), followed AS (
    SELECT event_date, lead(event_date) OVER (PARTITION BY actor_id ORDER BY event_date) AS next_date
    FROM active
), moves AS (
    SELECT event_date AS day, 1 AS daily, 1 AS weekly, 1 AS monthly FROM followed
    UNION ALL
    SELECT event_date + 1, -1, 0, 0 FROM followed
    UNION ALL
    SELECT least(event_date + 7, coalesce(next_date, event_date + 7)), 0, -1, 0 FROM followed
    UNION ALL
    SELECT least(event_date + 28, coalesce(next_date, event_date + 28)), 0, 0, -1 FROM followed
), newest AS (
    SELECT max(received_date) AS last_day FROM core.usage_events
), span AS (
    SELECT min(a.event_date) AS first_day, least(max(a.event_date), max(n.last_day)) AS last_day
    FROM active AS a CROSS JOIN newest AS n
), days AS (
    SELECT CAST(t.moment AS DATE) AS day
    FROM span, generate_series(CAST(first_day AS TIMESTAMP), CAST(last_day AS TIMESTAMP), INTERVAL 1 DAY) AS t(moment)
), summed AS (
    SELECT day, sum(daily) AS daily, sum(weekly) AS weekly, sum(monthly) AS monthly FROM moves GROUP BY day
), counts AS (
    SELECT
        d.day,
        CAST(sum(coalesce(s.daily, 0)) OVER (ORDER BY d.day) AS BIGINT) AS daily_actors,
        CAST(sum(coalesce(s.weekly, 0)) OVER (ORDER BY d.day) AS BIGINT) AS weekly_actors,
        CAST(sum(coalesce(s.monthly, 0)) OVER (ORDER BY d.day) AS BIGINT) AS monthly_actors
    FROM days AS d
    LEFT JOIN summed AS s ON s.day = d.day
)
SELECT
    day, daily_actors, weekly_actors, monthly_actors,
    CAST(daily_actors AS DOUBLE) / nullif(weekly_actors, 0) AS daily_of_weekly,
    CAST(daily_actors AS DOUBLE) / nullif(monthly_actors, 0) AS daily_of_monthly
FROM counts
