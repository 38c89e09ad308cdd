/*
kind: incremental_by_time
owner: finance@demo.example
description: >
  Money by day, currency and channel, in that currency and in the company's (…_home). gross: the goods before
  discounts; other: what the total holds beyond goods and shipping, such as tax; net: total less the refunds given
  on that day. Cancelled orders and their refunds count only in cancelled_orders. Orders and refunds without_rate,
  whose rate or total is unknown, are missing in the amounts in the company's currency.
grain: [sale_date, currency, channel]
time_column: sale_date
checks:
  - not_null: [sale_date, currency, channel]
  - unique: [sale_date, currency, channel]
  - expression: {sql: "without_rate = 0", name: rates_known}
    severity: warn
    max_rate: 0.0
*/
WITH moves AS (
    SELECT
        order_date AS sale_date, currency, channel, is_cancelled, 1 AS is_order,
        gross_amount, discount_amount, coalesce(shipping_amount, 0) AS shipping_amount,
        coalesce(other_amount, -gross_amount + discount_amount - coalesce(shipping_amount, 0)) AS other_amount,
        0 AS refund_amount,
        item_amount_home, total_amount_home, 0 AS refund_home
    FROM core.orders
    UNION ALL
    SELECT
        refund_date, currency, channel, FALSE AS is_cancelled, 0 AS is_order, 0 AS gross_amount, 0 AS discount_amount,
        0 AS shipping_amount, 0 AS other_amount, amount, 0 AS item_home, 0 AS total_home, amount_home
    FROM core.refunds
    WHERE is_cancelled IS NOT TRUE
), sums AS (
    SELECT
        sale_date, coalesce(currency, '(none)') AS currency, coalesce(channel, '(none)') AS channel,
        CAST(coalesce(sum(is_order) FILTER (WHERE NOT is_cancelled), 0) AS BIGINT) AS orders,
        count(*) FILTER (WHERE is_cancelled) AS cancelled_orders,
        count(*) FILTER (WHERE NOT is_cancelled AND total_amount_home + refund_home IS NULL) AS without_rate,
        coalesce(sum(gross_amount) FILTER (WHERE NOT is_cancelled), 0) AS gross_amount,
        coalesce(sum(discount_amount) FILTER (WHERE NOT is_cancelled), 0) AS discount_amount,
        coalesce(sum(shipping_amount) FILTER (WHERE NOT is_cancelled), 0) AS shipping_amount,
        coalesce(sum(other_amount) FILTER (WHERE NOT is_cancelled), 0) AS other_amount,
        coalesce(sum(refund_amount) FILTER (WHERE NOT is_cancelled), 0) AS refund_amount,
        coalesce(sum(item_amount_home) FILTER (WHERE NOT is_cancelled), 0) AS item_home,
        coalesce(sum(total_amount_home) FILTER (WHERE NOT is_cancelled), 0) AS total_home,
        coalesce(sum(refund_home) FILTER (WHERE NOT is_cancelled), 0) AS refund_home
    FROM moves
    GROUP BY sale_date, coalesce(currency, '(none)'), coalesce(channel, '(none)')
)
SELECT
    sale_date, currency, channel, orders, cancelled_orders, without_rate,
    CAST(gross_amount AS DECIMAL(18, 2)) AS gross_amount, CAST(discount_amount AS DECIMAL(18, 2)) AS discount_amount,
    CAST(shipping_amount AS DECIMAL(18, 2)) AS shipping_amount, CAST(other_amount AS DECIMAL(18, 2)) AS other_amount,
    CAST(refund_amount AS DECIMAL(18, 2)) AS refund_amount,
    CAST(gross_amount - discount_amount + shipping_amount + other_amount - refund_amount AS DECIMAL(18, 2))
        AS net_amount,
    CAST(item_home AS DECIMAL(18, 2)) AS item_home,
    CAST(total_home AS DECIMAL(18, 2)) AS total_home,
    CAST(refund_home AS DECIMAL(18, 2)) AS refund_home,
    CAST(total_home - refund_home AS DECIMAL(18, 2)) AS net_home
FROM sums
