/*
kind: view
owner: crm@demo.example
description: Salesforce users, renamed and cleaned.
grain: [user_id]
*/
SELECT
    id AS user_id,
    email AS email_hash,
    nullif(trim(title), '') AS title,
    nullif(trim(regional_office), '') AS regional_office,
    manager_id AS manager_user_id,
    is_active,
    created_at,
    updated_at
FROM raw.salesforce__users
