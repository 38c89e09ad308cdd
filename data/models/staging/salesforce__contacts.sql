/*
kind: view
owner: crm@demo.example
description: Salesforce contacts, renamed and cleaned; those in the recycle bin included.
grain: [contact_id]
*/
SELECT
    id AS contact_id,
    nullif(trim(external_id), '') AS external_id,
    account_id,
    email AS email_hash,
    lower(nullif(trim(title), '')) AS title,
    upper(nullif(trim(country), '')) AS country,
    lower(nullif(trim(lead_source), '')) AS lead_source,
    mailing_opt_out,
    owner_id AS owner_user_id,
    created_at,
    updated_at,
    is_deleted
FROM raw.salesforce__contacts
