/*
kind: full
owner: crm@demo.example
description: >
  One row per request to customer service that is not archived, with its first contact by id. It is open until it
  is closed; hours_to_close counts from its coming in. HubSpot's export does not say when it was first answered.
grain: [ticket_id]
time_column: created_date
checks:
  - not_null: [ticket_id]
  - unique: [ticket_id]
  - relationship: {column: contact_id, to: core.contacts.contact_id}
  - expression: {sql: "hours_to_close >= 0 OR hours_to_close IS NULL", name: closed_after_coming_in}
    severity: warn
*/
WITH contact_of AS (
    SELECT l.ticket_id, c.contact_id
    FROM staging.hubspot__ticket_contacts AS l
    JOIN core.contacts AS c ON c.contact_id = l.contact_id
    QUALIFY row_number() OVER (PARTITION BY l.ticket_id ORDER BY length(c.contact_id), c.contact_id) = 1
)
SELECT
    t.ticket_id, c.contact_id, t.pipeline, t.stage, t.priority, t.category, t.channel, t.owner_id,
    t.closed_at IS NULL AS is_open,
    t.created_at,
    CAST(t.created_at AT TIME ZONE :timezone AS DATE) AS created_date,
    t.closed_at,
    CAST(t.closed_at AT TIME ZONE :timezone AS DATE) AS closed_date,
    CAST(extract(EPOCH FROM t.closed_at - t.created_at) AS DOUBLE) / 3600 AS hours_to_close,
    t.updated_at
FROM staging.hubspot__tickets AS t
LEFT JOIN contact_of AS c ON c.ticket_id = t.ticket_id
WHERE NOT t.is_archived
