/*
kind: view
owner: marketing@demo.example
description: Web events kept in HubSpot, renamed and cleaned; archived ones included.
grain: [event_id]
*/
SELECT
    id AS event_id,
    nullif(trim(visitor_id), '') AS visitor_id,
    nullif(trim(contact_id), '') AS contact_id,
    lower(nullif(trim(event), '')) AS event,
    nullif(trim(page), '') AS page,
    lower(nullif(trim(channel), '')) AS channel,
    occurred_at,
    updated_at,
    archived AS is_archived
FROM raw.hubspot__web_events
