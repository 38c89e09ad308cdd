/*
kind: full
owner: crm@demo.example
description: One row per company that is not archived.
grain: [company_id]
checks:
  - not_null: [company_id]
  - unique: [company_id]
*/
SELECT
    company_id,
    external_id,
    company_name,
    domain,
    industry,
    city,
    state,
    country,
    created_at,
    updated_at
FROM staging.hubspot__companies
WHERE NOT is_archived
