/*
kind: full
owner: shop@demo.example
description: >
  One row per payment transaction of the shop; is_settled marks the ones that moved money to the shop, is_refund those
  that gave it back. processor is the provider behind the gateway, "unknown" for one that no seed lists.
grain: [payment_id]
time_column: payment_date
checks:
  - not_null: [payment_id, order_id]
  - unique: [payment_id]
  - relationship: {column: order_id, to: core.orders.order_id}
  - expression: {sql: "processor <> 'unknown'", name: gateway_known}
    severity: warn
*/
SELECT
    p.payment_id,
    p.order_id,
    p.kind,
    p.status,
    p.gateway,
    coalesce(g.processor, 'unknown') AS processor,
    p.amount,
    o.currency,
    coalesce(p.kind IN ('sale', 'capture') AND p.status = 'success', FALSE) AS is_settled,
    coalesce(p.kind = 'refund' AND p.status = 'success', FALSE) AS is_refund,
    p.paid_at,
    CAST(p.paid_at AT TIME ZONE :timezone AS DATE) AS payment_date
FROM staging.shopify__transactions AS p
LEFT JOIN core.orders AS o ON o.order_id = p.order_id
LEFT JOIN seeds.payment_gateways AS g ON g.gateway = p.gateway
