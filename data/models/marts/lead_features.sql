/*
kind: full
owner: crm@demo.example
description: >
  One row per lead: what was known at the first contact, and whether a deal was won within the 90 days after it.
  converted stays null until those days are over for the newest change seen in the CRM, never the clock.
grain: [lead_id]
time_column: first_contact_date
checks:
  - not_null: [lead_id, first_contact_date]
  - unique: [lead_id]
*/
WITH changes AS (
    SELECT created_at, updated_at FROM core.contacts
    UNION ALL
    SELECT created_at, updated_at FROM core.deals
), newest AS (
    SELECT CAST(greatest(max(created_at), max(updated_at)) AT TIME ZONE :timezone AS DATE) AS last_date
    FROM changes
), wins AS (
    SELECT DISTINCT c.contact_id
    FROM core.contacts AS c
    JOIN core.deals AS d ON d.contact_id = c.contact_id
    WHERE d.is_won AND d.closed_date BETWEEN c.first_contact_date AND c.first_contact_date + 90
)
SELECT
    c.contact_id AS lead_id,
    c.first_contact_date,
    CASE WHEN n.last_date > c.first_contact_date + 90 THEN w.contact_id IS NOT NULL END AS converted,
    c.lead_source,
    c.landing_page,
    c.country,
    c.job_level,
    c.industry,
    c.employees,
    c.visits_before_signup,
    c.newsletter,
    CAST(extract(ISODOW FROM c.first_contact_date) AS INTEGER) AS contact_weekday,
    CAST(extract(MONTH FROM c.first_contact_date) AS INTEGER) AS contact_month
FROM core.contacts AS c
CROSS JOIN newest AS n
LEFT JOIN wins AS w ON w.contact_id = c.contact_id
WHERE c.first_contact_date IS NOT NULL
