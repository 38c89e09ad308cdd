/*
kind: full
owner: shop@demo.example
description: >
  One row per order line, with the day and state of its order; item_amount is after the line's discount. Of the
  wholesaler's lines: goods sold at a price.
grain: [line_id]
time_column: order_date
checks:
  - not_null: [line_id, order_id, order_date, quantity, unit_price]
  - unique: [line_id]
  - relationship: {column: order_id, to: core.orders.order_id}
  - relationship: {column: product_id, to: core.products.product_id}
    severity: warn
  - expression: {sql: "quantity > 0", name: quantity_positive}
    severity: warn
*/
WITH lines AS (
    SELECT
        line_id, order_id, product_id, title, seller, sku, quantity, unit_price, discount_amount,
        CAST(quantity * unit_price - discount_amount AS DECIMAL(18, 2)) AS item_amount
    FROM staging.shopify__order_lines
    UNION ALL
    SELECT
        line_id, invoice_no, stock_code, description, CAST(NULL AS VARCHAR) AS seller, stock_code AS sku, quantity,
        CAST(unit_price AS DECIMAL(18, 2)) AS unit_price, CAST(0 AS DECIMAL(18, 2)) AS discount_amount,
        CAST(amount AS DECIMAL(18, 2)) AS item_amount
    FROM core.retail_lines
    WHERE invoice_kind = 'sale' AND line_kind = 'goods' AND NOT is_return
)
SELECT
    l.line_id, l.order_id, o.customer_id, l.product_id,
    coalesce(p.title, l.title) AS title,
    p.product_type,
    coalesce(l.seller, p.seller) AS seller,
    l.sku, l.quantity, l.unit_price, l.discount_amount, l.item_amount,
    CAST(l.item_amount * o.home_rate AS DECIMAL(18, 2)) AS item_amount_home,
    o.currency, o.is_home_currency, o.home_rate, o.is_cancelled, o.channel, o.country, o.ordered_at, o.order_date
FROM lines AS l
LEFT JOIN core.orders AS o ON o.order_id = l.order_id
LEFT JOIN core.products AS p ON p.product_id = l.product_id
