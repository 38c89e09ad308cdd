/*
kind: full
owner: shop@demo.example
description: >
  One row per line that was given back, with its product and reason; lines of cancelled orders and pieces taken off an
  order before they were sent (restock_type cancel) are none. Of the wholesaler: goods that came back, at the rate of
  the day; they name no order, so that the days until the return are unknown.
grain: [return_id]
time_column: return_date
checks:
  - not_null: [return_id, return_date]
  - unique: [return_id]
  - relationship: {column: order_id, to: core.orders.order_id}
  - expression: {sql: "days_to_return >= 0 OR days_to_return IS NULL", name: returned_after_order}
    severity: warn
*/
SELECT
    l.refund_line_id AS return_id,
    l.refund_id, l.order_id, r.customer_id, i.product_id, i.title, i.product_type,
    r.reason,
    coalesce(l.restock_type = 'return', FALSE) AS is_restocked,
    CAST(l.quantity AS BIGINT) AS quantity,
    l.amount,
    CAST(l.amount * r.home_rate AS DECIMAL(18, 2)) AS amount_home,
    r.channel, r.country, r.order_date,
    r.refund_date AS return_date,
    r.refund_date - r.order_date AS days_to_return
FROM staging.shopify__refund_lines AS l
LEFT JOIN core.refunds AS r ON r.refund_id = l.refund_id
LEFT JOIN core.order_items AS i ON i.line_id = l.line_id
WHERE r.is_cancelled IS NOT TRUE AND coalesce(l.restock_type, '') <> 'cancel'
UNION ALL
SELECT
    l.line_id, l.invoice_no, CAST(NULL AS VARCHAR) AS order_id, l.customer_hash, l.stock_code, p.title,
    p.product_type, CAST(NULL AS VARCHAR) AS reason, FALSE AS is_restocked,
    -CAST(l.quantity AS BIGINT) AS quantity,
    CAST(-l.amount AS DECIMAL(18, 2)) AS amount,
    CAST(-l.amount * CASE WHEN :currency = 'GBP' THEN 1 ELSE x.rate END AS DECIMAL(18, 2)) AS amount_home,
    'invoice' AS channel, l.country_code, CAST(NULL AS DATE) AS order_date, l.invoice_date,
    CAST(NULL AS INTEGER) AS days_to_return
FROM core.retail_lines AS l
LEFT JOIN core.exchange_rates AS x ON x.currency = 'GBP' AND x.rate_date = l.invoice_date
LEFT JOIN core.products AS p ON p.product_id = l.stock_code
WHERE l.is_return
