/*
kind: full
owner: crm@demo.example
description: One row per contact that is not archived. Days are in the company's time zone.
grain: [contact_id]
time_column: created_date
checks:
  - not_null: [contact_id]
  - unique: [contact_id]
  - expression: {sql: "length(country) = 2 OR country IS NULL", name: country_is_iso}
    severity: warn
*/
SELECT
    contact_id,
    external_id,
    email_hash,
    country,
    lifecycle_stage,
    lead_source,
    landing_page,
    first_contact_date,
    job_level,
    industry,
    employees,
    visits_before_signup,
    newsletter,
    created_at,
    CAST(created_at AT TIME ZONE :timezone AS DATE) AS created_date,
    updated_at
FROM staging.hubspot__contacts
WHERE NOT is_archived
