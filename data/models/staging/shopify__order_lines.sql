/*
kind: view
owner: shop@demo.example
description: Shopify order lines, renamed and cleaned; discount is for the whole line.
grain: [line_id]
*/
SELECT
    id AS line_id,
    order_id,
    product_id,
    nullif(trim(title), '') AS title,
    nullif(trim(sku), '') AS sku,
    nullif(trim(vendor), '') AS seller,
    quantity,
    unit_price,
    coalesce(discount, 0) AS discount_amount
FROM raw.shopify__order_lines
