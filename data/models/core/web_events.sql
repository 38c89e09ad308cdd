/*
kind: full
owner: marketing@demo.example
description: >
  One row per web event, archived ones left out. An event starts a visit when its visitor did nothing for
  30 minutes before; an event without a visitor is a visit of its own.
grain: [event_id]
time_column: event_date
checks:
  - not_null: [event_id, event, occurred_at]
  - unique: [event_id]
*/
WITH events AS (
    SELECT
        e.*,
        lag(occurred_at) OVER (PARTITION BY visitor_id ORDER BY occurred_at, event_id) AS previous_at
    FROM staging.hubspot__web_events AS e
    WHERE NOT is_archived
)
SELECT
    event_id,
    visitor_id,
    contact_id,
    event,
    page,
    channel,
    occurred_at,
    CAST(occurred_at AT TIME ZONE :timezone AS DATE) AS event_date,
    visitor_id IS NULL
    OR previous_at IS NULL
    OR occurred_at - previous_at > INTERVAL 30 MINUTE AS starts_visit
FROM events
