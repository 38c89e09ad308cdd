/*
kind: full
owner: shop@demo.example
description: >
  The catalogue, one row per product; price is the lowest of its variants. Of the wholesaler's goods, which come
  without a catalogue: the description written most often and the lowest price charged.
grain: [product_id]
checks:
  - not_null: [product_id]
  - unique: [product_id]
  - expression: {sql: "price >= 0 OR price IS NULL", name: price_not_negative}
    severity: warn
*/
WITH described AS (
    SELECT
        stock_code,
        description,
        min(min(unit_price)) OVER (PARTITION BY stock_code) AS price,
        min(min(invoiced_at)) OVER (PARTITION BY stock_code) AS created_at,
        max(max(invoiced_at)) OVER (PARTITION BY stock_code) AS updated_at
    FROM core.retail_lines
    WHERE line_kind = 'goods'
    GROUP BY stock_code, description
    QUALIFY row_number() OVER (PARTITION BY stock_code ORDER BY count(*) DESC, description NULLS LAST) = 1
)
SELECT
    product_id, title, handle, product_type, seller, status, price, created_at, updated_at
FROM staging.shopify__products
UNION ALL
SELECT
    stock_code, description,
    CAST(NULL AS VARCHAR) AS handle, CAST(NULL AS VARCHAR) AS product_type, CAST(NULL AS VARCHAR) AS seller,
    CAST(NULL AS VARCHAR) AS status,
    CAST(price AS DECIMAL(18, 2)) AS price, created_at, updated_at
FROM described
