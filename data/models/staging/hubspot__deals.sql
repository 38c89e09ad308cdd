/*
kind: view
owner: crm@demo.example
description: HubSpot deals, renamed and cleaned; archived ones included. closed_at of an open deal is only a plan.
grain: [deal_id]
*/
SELECT
    id AS deal_id,
    nullif(trim(external_id), '') AS external_id,
    nullif(trim(name), '') AS deal_name,
    amount,
    lower(nullif(trim(stage), '')) AS stage,
    lower(nullif(trim(pipeline), '')) AS pipeline,
    lower(nullif(trim(segment), '')) AS segment,
    lower(nullif(trim(lead_type), '')) AS lead_type,
    nullif(trim(external_company_id), '') AS external_company_id,
    closed_at,
    created_at,
    updated_at,
    archived AS is_archived
FROM raw.hubspot__deals
