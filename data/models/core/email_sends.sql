/*
kind: full
owner: marketing@demo.example
description: One row per e-mail sent, archived ones left out. An opening implied by a click counts as opened.
grain: [send_id]
time_column: sent_date
checks:
  - not_null: [send_id, campaign, variant]
  - unique: [send_id]
  - not_null: [contact_id, sent_at]
    severity: warn
*/
SELECT
    send_id,
    campaign,
    variant,
    contact_id,
    email_hash,
    sent_at,
    CAST(sent_at AT TIME ZONE :timezone AS DATE) AS sent_date,
    opened_at,
    clicked_at,
    opened_at IS NOT NULL OR clicked_at IS NOT NULL AS is_opened,
    clicked_at IS NOT NULL AS is_clicked
FROM staging.hubspot__email_sends
WHERE NOT is_archived
