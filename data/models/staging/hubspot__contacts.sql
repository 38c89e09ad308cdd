/*
kind: view
owner: crm@demo.example
description: HubSpot contacts, renamed and cleaned; archived ones included.
grain: [contact_id]
*/
SELECT
    id AS contact_id,
    nullif(trim(external_id), '') AS external_id,
    email AS email_hash,
    upper(nullif(trim(country), '')) AS country,
    lower(nullif(trim(lifecycle_stage), '')) AS lifecycle_stage,
    lower(nullif(trim(lead_source), '')) AS lead_source,
    nullif(trim(landing_page), '') AS landing_page,
    first_contact_date,
    lower(nullif(trim(job_level), '')) AS job_level,
    lower(nullif(trim(industry), '')) AS industry,
    CASE WHEN employees > 0 THEN employees END AS employees,
    CASE WHEN visits_before_signup >= 0 THEN visits_before_signup END AS visits_before_signup,
    newsletter,
    created_at,
    updated_at,
    archived AS is_archived
FROM raw.hubspot__contacts
