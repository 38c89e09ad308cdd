/*
kind: incremental_by_time
owner: product@demo.example
description: >
  Events and their different actors by day and event, and the sessions that began on that day with that event
  (these add up). The event (all) counts the day's actors once; one of that very name is ~(all) here.
grain: [event_date, event]
time_column: event_date
checks:
  - not_null: [event_date, event, events, actors, sessions]
  - unique: [event_date, event]
*/
WITH named AS (
    SELECT event_date, actor_id, CASE WHEN event = '(all)' THEN '~(all)' ELSE event END AS event
    FROM core.usage_events
), begun AS (
    SELECT
        session_date, is_bounced,
        CASE WHEN first_event = '(all)' THEN '~(all)' ELSE first_event END AS first_event
    FROM core.usage_sessions
), events AS (
    SELECT
        event_date,
        coalesce(event, '(all)') AS event,
        CAST(count(*) AS BIGINT) AS events,
        CAST(count(DISTINCT actor_id) AS BIGINT) AS actors
    FROM named
    GROUP BY GROUPING SETS ((event_date), (event_date, event))
), sessions AS (
    SELECT
        session_date,
        coalesce(first_event, '(all)') AS event,
        CAST(count(*) AS BIGINT) AS sessions,
        CAST(count(*) FILTER (WHERE is_bounced) AS BIGINT) AS bounced
    FROM begun
    GROUP BY GROUPING SETS ((session_date), (session_date, first_event))
)
SELECT
    e.event_date,
    e.event,
    e.events,
    e.actors,
    coalesce(s.sessions, 0) AS sessions,
    coalesce(s.bounced, 0) AS bounced_sessions
FROM events AS e
LEFT JOIN sessions AS s ON s.session_date = e.event_date AND s.event = e.event
