/*
kind: full
owner: shop@demo.example
description: One row per payment transaction; is_settled marks the ones that moved money to the shop.
grain: [payment_id]
time_column: payment_date
checks:
  - not_null: [payment_id, order_id]
  - unique: [payment_id]
  - relationship: {column: order_id, to: core.orders.order_id}
*/
SELECT
    p.payment_id,
    p.order_id,
    p.kind,
    p.status,
    p.gateway,
    p.amount,
    o.currency,
    coalesce(p.kind IN ('sale', 'capture') AND p.status = 'success', FALSE) AS is_settled,
    p.paid_at,
    CAST(p.paid_at AT TIME ZONE :timezone AS DATE) AS payment_date
FROM staging.shopify__transactions AS p
LEFT JOIN core.orders AS o ON o.order_id = p.order_id
