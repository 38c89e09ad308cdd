/*
kind: view
owner: shop@demo.example
description: Shopify products, renamed and cleaned.
grain: [product_id]
*/
SELECT
    id AS product_id,
    nullif(trim(title), '') AS title,
    nullif(trim(handle), '') AS handle,
    lower(nullif(trim(product_type), '')) AS product_type,
    nullif(trim(vendor), '') AS seller,
    lower(nullif(trim(status), '')) AS status,
    price_min AS price,
    created_at,
    updated_at
FROM raw.shopify__products
