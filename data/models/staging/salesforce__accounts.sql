/*
kind: view
owner: crm@demo.example
description: Salesforce accounts, renamed and cleaned; those in the recycle bin included.
grain: [account_id]
*/
SELECT
    id AS account_id,
    nullif(trim(external_id), '') AS external_id,
    nullif(trim(name), '') AS account_name,
    lower(nullif(trim(industry), '')) AS industry,
    CASE WHEN annual_revenue >= 0 THEN annual_revenue END AS annual_revenue,
    CASE WHEN employees > 0 THEN employees END AS employees,
    nullif(trim(year_started), '') AS year_started,
    lower(nullif(trim(website), '')) AS website,
    nullif(trim(city), '') AS city,
    nullif(trim(state), '') AS state,
    nullif(trim(country), '') AS country,
    parent_id AS parent_account_id,
    owner_id AS owner_user_id,
    created_at,
    updated_at,
    is_deleted
FROM raw.salesforce__accounts
