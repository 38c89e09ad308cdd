/*
kind: full
owner: shop@demo.example
description: >
  One row per person or firm that bought or signed up: customers of the web shop, and those of the wholesaler, who
  come with their first invoice and its country.
grain: [customer_id]
time_column: created_date
checks:
  - not_null: [customer_id]
  - unique: [customer_id]
*/
WITH combined AS (
    SELECT customer_id, email_hash, city, province, country, accepts_marketing, created_at, updated_at
    FROM staging.shopify__customers
    UNION ALL
    SELECT
        customer_hash,
        CAST(NULL AS VARCHAR) AS email_hash,
        CAST(NULL AS VARCHAR) AS city,
        CAST(NULL AS VARCHAR) AS province,
        country_code,
        CAST(NULL AS BOOLEAN) AS accepts_marketing,
        invoiced_at,
        max(invoiced_at) OVER (PARTITION BY customer_hash) AS updated_at
    FROM core.retail_invoices
    WHERE customer_hash IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY customer_hash ORDER BY invoiced_at, invoice_no) = 1
)
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
FROM combined
