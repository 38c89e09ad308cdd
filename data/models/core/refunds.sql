/*
kind: full
owner: shop@demo.example
description: >
  One row per refund, on the day the money was given back. amount_home is at the rate of the order's day: what the
  order's refunds up to this one come to, rounded, less those before, so that a refund in full, in parts too, leaves
  nothing. The wholesaler's cancellations are refunds that name no order: is_linked is false.
grain: [refund_id]
time_column: refund_date
checks:
  - not_null: [refund_id]
  - unique: [refund_id]
  - expression: {sql: "order_id IS NOT NULL OR NOT is_linked", name: linked_refund_has_order}
  - relationship: {column: order_id, to: core.orders.order_id}
  - expression: {sql: "amount >= 0 OR amount IS NULL", name: amount_not_negative}
    severity: warn
*/
WITH combined AS (
    SELECT
        r.refund_id, r.order_id, o.customer_id, r.amount, r.reason, TRUE AS is_linked,
        o.currency, o.is_home_currency, o.home_rate, o.is_cancelled, o.channel, o.country, o.order_date,
        r.refunded_at
    FROM staging.shopify__refunds AS r
    LEFT JOIN core.orders AS o ON o.order_id = r.order_id
    UNION ALL
    SELECT
        i.invoice_no, CAST(NULL AS VARCHAR) AS order_id, i.customer_hash,
        CAST(i.refunded_amount AS DECIMAL(18, 2)) AS amount, CAST(NULL AS VARCHAR) AS reason, FALSE AS is_linked,
        'GBP' AS currency, :currency = 'GBP' AS is_home_currency,
        CASE WHEN :currency = 'GBP' THEN CAST(1 AS DECIMAL(18, 8)) ELSE r.rate END AS home_rate,
        FALSE AS is_cancelled, 'invoice' AS channel, i.country_code, CAST(NULL AS DATE) AS order_date, i.invoiced_at
    FROM core.retail_invoices AS i
    LEFT JOIN core.exchange_rates AS r ON r.currency = 'GBP' AND r.rate_date = i.invoice_date
    WHERE i.refunded_amount > 0
), running AS (
    SELECT
        c.*,
        CAST(sum(amount) OVER (
            PARTITION BY is_linked, coalesce(order_id, refund_id) ORDER BY refunded_at NULLS LAST, refund_id
            ROWS UNBOUNDED PRECEDING
        ) AS DECIMAL(18, 2)) AS so_far
    FROM combined AS c
)
SELECT
    refund_id, order_id, customer_id, amount,
    CAST(
        CAST(so_far * home_rate AS DECIMAL(18, 2)) - CAST((so_far - amount) * home_rate AS DECIMAL(18, 2))
        AS DECIMAL(18, 2)
    ) AS amount_home,
    reason, is_linked, currency, is_home_currency, home_rate, is_cancelled, channel, country,
    order_date, refunded_at,
    CAST(refunded_at AT TIME ZONE :timezone AS DATE) AS refund_date
FROM running
