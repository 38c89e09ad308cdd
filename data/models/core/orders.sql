/*
kind: full
owner: shop@demo.example
description: >
  One row per order, whatever its state. order_date is the day it was placed in the company's time zone.
  revenue is what it earned after refunds: zero when cancelled or in a foreign currency.
grain: [order_id]
time_column: order_date
checks:
  - not_null: [order_id, order_date, currency, revenue]
  - unique: [order_id]
  - relationship: {column: customer_id, to: core.customers.customer_id}
    severity: warn
  - expression: {sql: "is_home_currency", name: in_home_currency}
    severity: warn
  - expression: {sql: "net_amount >= 0 OR net_amount IS NULL", name: not_refunded_beyond_total}
    severity: warn
*/
WITH lines AS (
    SELECT
        order_id,
        sum(quantity) AS items,
        sum(quantity * unit_price - discount_amount) AS item_amount
    FROM staging.shopify__order_lines
    GROUP BY order_id
), orders AS (
    SELECT
        o.*,
        total_amount - refunded_amount AS net_amount,
        cancelled_at IS NOT NULL AS is_cancelled,
        currency = :currency AS is_home_currency
    FROM staging.shopify__orders AS o
)
SELECT
    o.order_id, o.order_number, o.customer_id,
    coalesce(o.email_hash, c.email_hash) AS email_hash,
    c.country, c.province, o.channel, o.financial_status, o.fulfillment_status,
    o.currency, o.is_home_currency, o.is_cancelled,
    CAST(coalesce(l.items, 0) AS BIGINT) AS items,
    CAST(coalesce(l.item_amount, 0) AS DECIMAL(18, 2)) AS item_amount,
    o.subtotal_amount, o.shipping_amount, o.total_amount, o.refunded_amount, o.net_amount,
    CAST(
        CASE WHEN o.is_cancelled OR NOT o.is_home_currency THEN 0 ELSE coalesce(o.net_amount, 0) END
        AS DECIMAL(18, 2)
    ) AS revenue,
    o.ordered_at,
    CAST(o.ordered_at AT TIME ZONE :timezone AS DATE) AS order_date,
    o.cancelled_at, o.updated_at
FROM orders AS o
LEFT JOIN core.customers AS c ON c.customer_id = o.customer_id
LEFT JOIN lines AS l ON l.order_id = o.order_id
