/*
kind: view
owner: crm@demo.example
description: HubSpot tickets, renamed and cleaned; archived ones included.
grain: [ticket_id]
*/
SELECT
    id AS ticket_id,
    nullif(trim(pipeline), '') AS pipeline,
    nullif(trim(stage), '') AS stage,
    lower(nullif(trim(priority), '')) AS priority,
    lower(nullif(trim(category), '')) AS category,
    lower(nullif(trim(channel), '')) AS channel,
    nullif(trim(owner_id), '') AS owner_id,
    closed_at,
    created_at,
    updated_at,
    archived AS is_archived
FROM raw.hubspot__tickets
