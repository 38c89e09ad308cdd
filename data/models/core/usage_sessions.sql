/*
kind: full
owner: product@demo.example
description: >
  One row per session (core.usage_session_events). Its day is the one it began on. A session of a single event
  has bounced. Event, channel and account are those of its first event; landing and exit page those of its first
  and last event that has one.
grain: [actor_id, started_at]
time_column: session_date
checks:
  - not_null: [actor_id, started_at, session_date, events, duration_seconds, is_bounced]
  - unique: [actor_id, started_at]
*/
WITH numbered AS (
    SELECT
        e.*,
        row_number() OVER (PARTITION BY actor_id, session_started_at ORDER BY occurred_at, position) AS nth,
        row_number() OVER (
            PARTITION BY actor_id, session_started_at, page IS NULL ORDER BY occurred_at, position
        ) AS nth_page,
        row_number() OVER (
            PARTITION BY actor_id, session_started_at, page IS NULL ORDER BY occurred_at DESC, position DESC
        ) AS nth_page_back
    FROM core.usage_session_events AS e
)
SELECT
    actor_id,
    session_started_at AS started_at,
    max(occurred_at) AS ended_at,
    CAST(session_started_at AT TIME ZONE :timezone AS DATE) AS session_date,
    max(account) FILTER (WHERE nth = 1) AS account,
    max(source) FILTER (WHERE nth = 1) AS source,
    max(event) FILTER (WHERE nth = 1) AS first_event,
    max(channel) FILTER (WHERE nth = 1) AS channel,
    max(page) FILTER (WHERE nth_page = 1) AS landing_page,
    max(page) FILTER (WHERE nth_page_back = 1) AS exit_page,
    CAST(count(*) AS BIGINT) AS events,
    CAST(count(page) AS BIGINT) AS pages,
    CAST(
        CAST(extract(epoch FROM max(occurred_at)) - extract(epoch FROM session_started_at) AS DECIMAL(18, 6)) AS DOUBLE
    ) AS duration_seconds,
    count(*) = 1 AS is_bounced
FROM numbered
GROUP BY actor_id, session_started_at
