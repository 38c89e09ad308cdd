/*
kind: view
owner: crm@demo.example
description: Salesforce opportunities, renamed and cleaned; those in the recycle bin included.
grain: [opportunity_id]
*/
SELECT
    id AS opportunity_id,
    nullif(trim(external_id), '') AS external_id,
    nullif(trim(name), '') AS opportunity_name,
    account_id,
    nullif(trim(account_name), '') AS account_name,
    amount,
    lower(nullif(trim(stage), '')) AS stage,
    is_closed,
    is_won,
    lower(nullif(trim(type), '')) AS opportunity_type,
    lower(nullif(trim(lead_source), '')) AS lead_source,
    product_id,
    nullif(trim(product_name), '') AS product_name,
    engaged_on,
    closed_on,
    owner_id AS owner_user_id,
    created_at,
    updated_at,
    is_deleted
FROM raw.salesforce__opportunities
