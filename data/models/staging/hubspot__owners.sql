/*
kind: view
owner: crm@demo.example
description: Owners of HubSpot records; those who left included.
grain: [owner_id]
*/
SELECT
    id AS owner_id,
    nullif(trim(user_id), '') AS user_id,
    email AS email_hash,
    lower(kind) AS kind,
    created_at,
    updated_at,
    archived AS is_archived
FROM raw.hubspot__owners
