/*
kind: full
owner: shop@demo.example
description: >
  One row per customer with at least one order that was not cancelled. revenue is after refunds, those that name no
  order included. Recency counts from the newest order. Scores run from 1 to 5, 5 best, by percent rank, so that
  equal customers score equally.
grain: [customer_id]
time_column: first_order_date
checks:
  - not_null: [customer_id, orders, revenue, recency_days]
  - unique: [customer_id]
  - expression: {sql: "recency_days >= 0 AND tenure_days >= recency_days", name: dates_in_order}
*/
WITH newest AS (
    SELECT max(order_date) AS last_date FROM core.orders
), buyers AS (
    SELECT
        customer_id,
        count(*) AS orders,
        count(DISTINCT order_date) AS order_days,
        min(order_date) AS first_order_date,
        max(order_date) AS last_order_date,
        coalesce(sum(revenue), 0) AS revenue
    FROM core.orders
    WHERE NOT is_cancelled AND customer_id IS NOT NULL
    GROUP BY customer_id
), given_back AS (
    SELECT customer_id, sum(amount_home) AS amount FROM core.refunds WHERE NOT is_linked GROUP BY customer_id
), netted AS (
    SELECT
        b.customer_id, b.orders, b.order_days, b.first_order_date, b.last_order_date,
        b.revenue - coalesce(g.amount, 0) AS revenue
    FROM buyers AS b
    LEFT JOIN given_back AS g ON g.customer_id = b.customer_id
), ranked AS (
    SELECT
        b.*,
        CAST(least(5, 1 + floor(5 * percent_rank() OVER (ORDER BY last_order_date))) AS INTEGER) AS recency_score,
        CAST(least(5, 1 + floor(5 * percent_rank() OVER (ORDER BY orders))) AS INTEGER) AS frequency_score,
        CAST(least(5, 1 + floor(5 * percent_rank() OVER (ORDER BY revenue))) AS INTEGER) AS monetary_score
    FROM netted AS b
)
SELECT
    r.customer_id, c.email_hash, c.country, c.province,
    r.orders, r.order_days, r.first_order_date, r.last_order_date,
    n.last_date - r.last_order_date AS recency_days,
    n.last_date - r.first_order_date AS tenure_days,
    CAST(r.revenue AS DECIMAL(18, 2)) AS revenue,
    r.recency_score, r.frequency_score, r.monetary_score,
    CASE
        WHEN r.recency_score >= 4 AND r.frequency_score >= 4 THEN 'champion'
        WHEN r.frequency_score >= 4 THEN 'lapsing_regular'
        WHEN r.recency_score >= 4 AND r.orders = 1 THEN 'new'
        WHEN r.recency_score <= 2 THEN 'lapsed'
        ELSE 'occasional'
    END AS segment
FROM ranked AS r
CROSS JOIN newest AS n
LEFT JOIN core.customers AS c ON c.customer_id = r.customer_id
