/*
kind: view
owner: finance@demo.example
description: Stripe products, renamed and cleaned; deleted ones included.
grain: [product_id]
*/
SELECT
    id AS product_id,
    nullif(trim(name), '') AS product_name,
    coalesce(active, false) AS is_active,
    default_price_id,
    deleted AS is_deleted,
    created_at
FROM raw.stripe__products
