/*
kind: view
owner: shop@demo.example
description: Shopify customers, renamed and cleaned.
grain: [customer_id]
*/
SELECT
    id AS customer_id,
    email AS email_hash,
    nullif(trim(city), '') AS city,
    upper(nullif(trim(province), '')) AS province,
    upper(nullif(trim(country), '')) AS country,
    upper(accepts_marketing) = 'SUBSCRIBED' AS accepts_marketing,
    created_at,
    updated_at
FROM raw.shopify__customers
