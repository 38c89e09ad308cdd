/*
kind: full
owner: shop@demo.example
description: >
  Customers by segment of marts.customer_value: how many, what they brought in, their share of it; orders and refunds
  without_rate are missing in it. champion bought lately and often; lapsing_regular often but not lately; new once and
  lately; lapsed long ago; occasional the rest.
grain: [segment]
checks:
  - not_null: [segment, customers, revenue]
  - unique: [segment]
  - accepted: {column: segment, values: [champion, lapsing_regular, new, occasional, lapsed]}
*/
SELECT
    segment,
    count(*) AS customers,
    CAST(sum(orders) AS BIGINT) AS orders,
    CAST(sum(without_rate) AS BIGINT) AS without_rate,
    CAST(sum(revenue) AS DECIMAL(18, 2)) AS revenue,
    CAST(sum(revenue) AS DOUBLE) / nullif(CAST(sum(sum(revenue)) OVER () AS DOUBLE), 0) AS revenue_share,
    CAST(sum(recency_days) AS DOUBLE) / count(*) AS average_recency_days,
    CAST(sum(orders) AS DOUBLE) / count(*) AS average_orders
FROM marts.customer_value
GROUP BY segment
