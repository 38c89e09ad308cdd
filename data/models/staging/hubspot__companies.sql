/*
kind: view
owner: crm@demo.example
description: HubSpot companies, renamed and cleaned; archived ones included.
grain: [company_id]
*/
SELECT
    id AS company_id,
    nullif(trim(external_id), '') AS external_id,
    nullif(trim(name), '') AS company_name,
    lower(nullif(trim(domain), '')) AS domain,
    lower(nullif(trim(industry), '')) AS industry,
    nullif(trim(city), '') AS city,
    upper(nullif(trim(state), '')) AS state,
    upper(nullif(trim(country), '')) AS country,
    created_at,
    updated_at,
    archived AS is_archived
FROM raw.hubspot__companies
