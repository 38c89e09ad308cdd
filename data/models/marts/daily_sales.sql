/*
kind: incremental_by_time
owner: shop@demo.example
description: >
  Sales by day, channel and country, in the company's currency at the rate of the day. Amounts cover orders that were
  not cancelled; those without_rate, whose rate or total is unknown, are missing in them.
grain: [order_date, channel, country]
time_column: order_date
checks:
  - not_null: [order_date, channel, country, orders, revenue]
  - unique: [order_date, channel, country]
*/
SELECT
    order_date,
    coalesce(channel, '(none)') AS channel,
    coalesce(country, '(none)') AS country,
    count(*) AS orders,
    count(*) FILTER (WHERE is_cancelled) AS cancelled_orders,
    count(*) FILTER (WHERE NOT is_cancelled AND revenue IS NULL) AS without_rate,
    CAST(coalesce(sum(items) FILTER (WHERE NOT is_cancelled), 0) AS BIGINT) AS items,
    CAST(coalesce(sum(item_amount_home) FILTER (WHERE NOT is_cancelled), 0) AS DECIMAL(18, 2)) AS item_amount,
    CAST(coalesce(sum(refunded_amount_home) FILTER (WHERE NOT is_cancelled), 0) AS DECIMAL(18, 2))
        AS refunded_amount,
    CAST(coalesce(sum(revenue), 0) AS DECIMAL(18, 2)) AS revenue
FROM core.orders
GROUP BY order_date, coalesce(channel, '(none)'), coalesce(country, '(none)')
