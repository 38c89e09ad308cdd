/*
kind: full
owner: shop@demo.example
description: >
  One row per customer with an order that was not cancelled. revenue is after refunds, those that name no order
  included; orders and refunds without_rate are missing in it. Recency counts from the newest such order that is not
  dated later than the newest change. Scores are fifths of the middle rank: equal customers score equally, the best 5.
grain: [customer_id]
time_column: first_order_date
checks:
  - not_null: [customer_id, orders, revenue, recency_days]
  - unique: [customer_id]
  - expression: {sql: "recency_days >= 0 AND tenure_days >= recency_days", name: dates_in_order}
*/
WITH newest AS (
    SELECT coalesce(max(o.order_date) FILTER (WHERE o.ordered_at <= c.changed_at), max(o.order_date)) AS last_date
    FROM core.orders AS o
    CROSS JOIN (SELECT max(updated_at) AS changed_at FROM core.orders) AS c
    WHERE NOT o.is_cancelled
), moves AS (
    SELECT customer_id, order_date, revenue FROM core.orders WHERE NOT is_cancelled UNION ALL
    SELECT customer_id, NULL AS order_date, -amount_home FROM core.refunds WHERE NOT is_linked
), netted AS (
    SELECT
        customer_id, count(order_date) AS orders, count(DISTINCT order_date) AS order_days,
        min(order_date) AS first_order_date, max(order_date) AS last_order_date,
        count(*) FILTER (WHERE revenue IS NULL) AS without_rate, coalesce(sum(revenue), 0) AS revenue
    FROM moves
    WHERE customer_id IS NOT NULL
    GROUP BY customer_id HAVING count(order_date) > 0
), ranked AS (
    SELECT b.*, count(*) OVER () AS n,
        rank() OVER (ORDER BY last_order_date) AS r_up, rank() OVER (ORDER BY last_order_date DESC) AS r_down,
        rank() OVER (ORDER BY orders) AS f_up, rank() OVER (ORDER BY orders DESC) AS f_down,
        rank() OVER (ORDER BY revenue) AS m_up, rank() OVER (ORDER BY revenue DESC) AS m_down
    FROM netted AS b
), scored AS (
    SELECT r.*,
        CASE WHEN r_down = 1 AND r_up > 1 THEN 5 ELSE 1 + floor(2.5 * (r_up - r_down + n) / nullif(n, 0)) END AS recency,
        CASE WHEN f_down = 1 AND f_up > 1 THEN 5 ELSE 1 + floor(2.5 * (f_up - f_down + n) / nullif(n, 0)) END AS frequency,
        CASE WHEN m_down = 1 AND m_up > 1 THEN 5 ELSE 1 + floor(2.5 * (m_up - m_down + n) / nullif(n, 0)) END AS monetary
    FROM ranked AS r
)
SELECT
    r.customer_id, c.email_hash, c.country, c.province, r.orders, r.order_days, r.first_order_date, r.last_order_date,
    greatest(n.last_date - r.last_order_date, 0) AS recency_days,
    greatest(n.last_date - r.first_order_date, 0) AS tenure_days,
    r.without_rate, CAST(r.revenue AS DECIMAL(18, 2)) AS revenue,
    CAST(recency AS INTEGER) AS recency_score, CAST(frequency AS INTEGER) AS frequency_score,
    CAST(monetary AS INTEGER) AS monetary_score,
    CASE
        WHEN recency >= 4 AND frequency >= 4 THEN 'champion'
        WHEN frequency >= 4 THEN 'lapsing_regular'
        WHEN recency >= 4 AND orders = 1 THEN 'new'
        WHEN recency <= 2 THEN 'lapsed'
        ELSE 'occasional'
    END AS segment
FROM scored AS r
CROSS JOIN newest AS n
LEFT JOIN core.customers AS c ON c.customer_id = r.customer_id
