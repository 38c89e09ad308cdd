/*
kind: full
owner: crm@demo.example
description: One row per company in the CRM that is not archived or in the recycle bin, whichever CRM it is.
grain: [company_id]
checks:
  - not_null: [company_id]
  - unique: [company_id]
*/
SELECT
    company_id, 'hubspot' AS source, external_id, company_name, domain, industry, city, state, country,
    created_at, updated_at
FROM staging.hubspot__companies
WHERE NOT is_archived
UNION ALL
SELECT
    account_id, 'salesforce', external_id, account_name, website, industry, city, state, country,
    created_at, updated_at
FROM staging.salesforce__accounts
WHERE NOT is_deleted
