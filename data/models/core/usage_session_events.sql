/*
kind: view
owner: product@demo.example
description: >
  The events of core.usage_events that have an actor, each with the session it belongs to, named by the moment
  it began. 30 minutes without an event of the actor end a session; midnight does not. Events without an actor
  belong to no session.
grain: [source, event_id]
*/
WITH gaps AS (
    SELECT
        e.*,
        lag(occurred_at) OVER (PARTITION BY actor_id ORDER BY occurred_at, position) AS previous_at
    FROM core.usage_events AS e
    WHERE actor_id IS NOT NULL
)
SELECT
    source, event_id, account, actor_id, event, page, channel, properties, occurred_at, event_date, position,
    max(CASE WHEN previous_at IS NULL OR occurred_at > previous_at + INTERVAL 30 MINUTE THEN occurred_at END)
        OVER (
            PARTITION BY actor_id ORDER BY occurred_at, position
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS session_started_at
FROM gaps
