/*
kind: view
owner: finance@demo.example
description: Stripe customers, renamed and cleaned; deleted ones included.
grain: [customer_id]
*/
SELECT
    id AS customer_id,
    nullif(trim(shop_customer_ref), '') AS shop_customer_ref,
    nullif(trim(company_ref), '') AS company_ref,
    email AS email_hash,
    upper(nullif(trim(country), '')) AS country,
    upper(nullif(trim(currency), '')) AS currency,
    balance AS balance_minor,
    coalesce(delinquent, false) AS is_delinquent,
    deleted AS is_deleted,
    created_at
FROM raw.stripe__customers
