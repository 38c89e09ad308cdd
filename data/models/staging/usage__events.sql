/*
kind: view
owner: product@demo.example
description: Usage events that were collected, cleaned.
grain: [source, event_id]
*/
SELECT
    source,
    event_id,
    nullif(trim(account), '') AS account,
    nullif(trim(actor_id), '') AS actor_id,
    nullif(trim(session_id), '') AS session_id,
    lower(trim(event)) AS event,
    properties,
    occurred_at,
    received_at
FROM raw.usage__events
