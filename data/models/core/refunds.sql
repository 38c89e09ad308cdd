/*
kind: full
owner: shop@demo.example
description: One row per refund, on the day the money was given back.
grain: [refund_id]
time_column: refund_date
checks:
  - not_null: [refund_id, order_id]
  - unique: [refund_id]
  - relationship: {column: order_id, to: core.orders.order_id}
  - expression: {sql: "amount >= 0 OR amount IS NULL", name: amount_not_negative}
    severity: warn
*/
SELECT
    r.refund_id,
    r.order_id,
    o.customer_id,
    r.amount,
    r.reason,
    o.currency,
    o.is_home_currency,
    o.channel,
    o.country,
    o.order_date,
    r.refunded_at,
    CAST(r.refunded_at AT TIME ZONE :timezone AS DATE) AS refund_date
FROM staging.shopify__refunds AS r
LEFT JOIN core.orders AS o ON o.order_id = r.order_id
