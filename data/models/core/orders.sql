/*
kind: full
owner: shop@demo.example
description: >
  One row per order of the shop or the wholesaler, whatever its state. order_date is the day it was placed in the
  company's time zone. home_rate turns its amounts into the company's currency: the rate of that day, null if there
  is none. revenue is what it earned after refunds in the company's currency: zero when cancelled, null when its rate
  or its total is unknown.
grain: [order_id]
time_column: order_date
checks:
  - not_null: [order_id, order_date, currency]
  - unique: [order_id]
  - relationship: {column: customer_id, to: core.customers.customer_id}
    severity: warn
  - expression: {sql: "home_rate IS NOT NULL", name: rate_known}
    severity: warn
    max_rate: 0.0
  - expression: {sql: "total_amount IS NOT NULL", name: total_known}
    severity: warn
    max_rate: 0.0
  - expression: {sql: "net_amount >= 0 OR net_amount IS NULL", name: not_refunded_beyond_total}
    severity: warn
*/
WITH combined AS (
    SELECT * FROM core.shop_orders
    UNION ALL
    SELECT * FROM core.retail_orders
), orders AS (
    SELECT
        b.*,
        gross_amount - discount_amount AS item_amount,
        total_amount - refunded_amount AS net_amount,
        cancelled_at IS NOT NULL AS is_cancelled,
        currency = :currency AS is_home_currency,
        CAST(ordered_at AT TIME ZONE :timezone AS DATE) AS order_date
    FROM combined AS b
), rated AS (
    SELECT o.*, CASE WHEN o.is_home_currency THEN CAST(1 AS DECIMAL(28, 8)) ELSE r.rate END AS home_rate
    FROM orders AS o
    LEFT JOIN core.exchange_rates AS r ON r.currency = o.currency AND r.rate_date = o.order_date
)
SELECT
    o.order_id, o.order_number, o.customer_id,
    coalesce(o.email_hash, c.email_hash) AS email_hash,
    coalesce(o.country, c.country) AS country, c.province,
    o.channel, o.financial_status, o.fulfillment_status,
    o.currency, o.is_home_currency, o.home_rate, o.is_cancelled, o.items,
    o.gross_amount, o.discount_amount, CAST(o.item_amount AS DECIMAL(18, 2)) AS item_amount,
    o.subtotal_amount, o.shipping_amount,
    CAST(o.total_amount - o.item_amount - o.shipping_amount AS DECIMAL(18, 2)) AS other_amount,
    o.total_amount, o.refunded_amount, o.net_amount,
    CAST(o.item_amount * o.home_rate AS DECIMAL(18, 2)) AS item_amount_home,
    CAST(o.total_amount * o.home_rate AS DECIMAL(18, 2)) AS total_amount_home,
    CAST(o.refunded_amount * o.home_rate AS DECIMAL(18, 2)) AS refunded_amount_home,
    CAST(CASE WHEN o.is_cancelled THEN 0 ELSE CAST(o.total_amount * o.home_rate AS DECIMAL(18, 2))
        - CAST(o.refunded_amount * o.home_rate AS DECIMAL(18, 2)) END AS DECIMAL(18, 2)) AS revenue,
    o.ordered_at, o.order_date, o.cancelled_at, o.updated_at
FROM rated AS o
LEFT JOIN core.customers AS c ON c.customer_id = o.customer_id
