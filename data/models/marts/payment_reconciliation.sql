/*
kind: full
owner: finance@demo.example
description: >
  Every order paid through Stripe, as the shop and as Stripe see it, by the order's number: what was settled, what
  went back, and whether they agree. Which gateways are Stripe's is in seeds.payment_gateways. Payments of nothing
  and charges that name no order (subscriptions, sales by hand) are left out.
grain: [order_number]
time_column: payment_date
checks:
  - not_null: [order_number, status]
  - unique: [order_number]
  - accepted: {column: status, values: [matched, amounts_differ, refunds_differ, only_in_shop, only_in_stripe]}
  - expression: {sql: "status = 'matched'", name: shop_and_stripe_agree}
    severity: warn
    max_rate: 0.001
*/
WITH shop AS (
    SELECT
        coalesce(o.order_number, p.order_id) AS order_number,
        min(p.currency) AS currency,
        min(p.payment_date) AS payment_date,
        coalesce(sum(p.amount) FILTER (WHERE p.is_settled), 0) AS settled,
        coalesce(sum(p.amount) FILTER (WHERE p.is_refund), 0) AS refunded
    FROM core.payments AS p
    LEFT JOIN core.orders AS o ON o.order_id = p.order_id
    WHERE (p.is_settled OR p.is_refund) AND p.processor = 'stripe' AND p.amount <> 0
    GROUP BY coalesce(o.order_number, p.order_id)
), stripe AS (
    SELECT
        order_number,
        min(currency) AS currency,
        min(charge_date) AS payment_date,
        sum(captured_amount) AS settled,
        sum(refunded_amount) AS refunded,
        sum(fee_amount) AS fees
    FROM core.charges
    WHERE is_settled AND order_number IS NOT NULL AND captured_amount <> 0
    GROUP BY order_number
)
SELECT
    coalesce(s.order_number, t.order_number) AS order_number,
    coalesce(s.payment_date, t.payment_date) AS payment_date,
    coalesce(s.currency, t.currency) AS currency,
    CAST(coalesce(s.settled, 0) AS DECIMAL(18, 2)) AS shop_settled,
    CAST(coalesce(t.settled, 0) AS DECIMAL(18, 2)) AS stripe_settled,
    CAST(coalesce(s.refunded, 0) AS DECIMAL(18, 2)) AS shop_refunded,
    CAST(coalesce(t.refunded, 0) AS DECIMAL(18, 2)) AS stripe_refunded,
    CAST(t.fees AS DECIMAL(18, 2)) AS stripe_fees,
    CASE
        WHEN t.order_number IS NULL THEN 'only_in_shop'
        WHEN s.order_number IS NULL THEN 'only_in_stripe'
        WHEN s.settled <> t.settled OR s.currency <> t.currency THEN 'amounts_differ'
        WHEN s.refunded <> t.refunded THEN 'refunds_differ'
        ELSE 'matched'
    END AS status
FROM shop AS s
FULL JOIN stripe AS t ON t.order_number = s.order_number
