/*
kind: full
owner: shop@demo.example
description: The catalogue, one row per product; price is the lowest of its variants.
grain: [product_id]
checks:
  - not_null: [product_id]
  - unique: [product_id]
  - expression: {sql: "price >= 0 OR price IS NULL", name: price_not_negative}
    severity: warn
*/
SELECT
    product_id,
    title,
    handle,
    product_type,
    seller,
    status,
    price,
    created_at,
    updated_at
FROM staging.shopify__products
