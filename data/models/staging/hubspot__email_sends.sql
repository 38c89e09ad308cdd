/*
kind: view
owner: marketing@demo.example
description: E-mails sent by HubSpot campaigns, renamed and cleaned; archived ones included.
grain: [send_id]
*/
SELECT
    id AS send_id,
    nullif(trim(campaign), '') AS campaign,
    nullif(trim(variant), '') AS variant,
    contact_id,
    email AS email_hash,
    sent_at,
    opened_at,
    clicked_at,
    updated_at,
    archived AS is_archived
FROM raw.hubspot__email_sends
