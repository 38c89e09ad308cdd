/*
kind: full
owner: shop@demo.example
description: One row per person who bought or signed up in the shop.
grain: [customer_id]
time_column: created_date
checks:
  - not_null: [customer_id]
  - unique: [customer_id]
*/
SELECT
    customer_id,
    email_hash,
    city,
    province,
    country,
    accepts_marketing,
    created_at,
    CAST(created_at AT TIME ZONE :timezone AS DATE) AS created_date,
    updated_at
FROM staging.shopify__customers
