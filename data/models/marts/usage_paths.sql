/*
kind: full
owner: product@demo.example
description: >
  What comes next within a session, by the month the session began: from a page (or event, where it has no page)
  to the next one, (start) before the first and (end) after the last; a page reloaded follows itself. The ten
  most frequent of each step, more where the tenth place is shared; share is of all that followed the step.
grain: [month, from_step, to_step]
checks:
  - not_null: [month, from_step, to_step, transitions, actors, share, place]
  - unique: [month, from_step, to_step]
*/
WITH steps AS (
    SELECT
        actor_id,
        CAST(date_trunc('month', CAST(session_started_at AT TIME ZONE :timezone AS DATE)) AS DATE) AS month,
        coalesce(page, event) AS step,
        lag(coalesce(page, event)) OVER visit AS previous,
        lead(coalesce(page, event)) OVER visit AS following
    FROM core.usage_session_events
    WINDOW visit AS (PARTITION BY actor_id, session_started_at ORDER BY occurred_at, position)
), pairs AS (
    SELECT actor_id, month, step AS from_step, coalesce(following, '(end)') AS to_step FROM steps
    UNION ALL
    SELECT actor_id, month, '(start)' AS from_step, step AS to_step FROM steps WHERE previous IS NULL
), counted AS (
    SELECT month, from_step, to_step, count(*) AS transitions, count(DISTINCT actor_id) AS actors
    FROM pairs
    GROUP BY month, from_step, to_step
)
SELECT
    month, from_step, to_step, transitions, actors,
    CAST(transitions AS DOUBLE) / nullif(sum(transitions) OVER (PARTITION BY month, from_step), 0) AS share,
    rank() OVER (PARTITION BY month, from_step ORDER BY transitions DESC) AS place
FROM counted
QUALIFY rank() OVER (PARTITION BY month, from_step ORDER BY transitions DESC) <= 10
