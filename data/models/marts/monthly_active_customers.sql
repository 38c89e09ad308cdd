/*
kind: full
owner: shop@demo.example
description: >
  Different customers with an order in a month that was not cancelled: those who never ordered before, those who
  ordered in the month before, and those who came back after a pause. Orders without a customer are left out;
  those without_rate are missing in revenue.
grain: [month]
time_column: month
checks:
  - not_null: [month, customers]
  - unique: [month]
  - expression: {sql: "new_customers + returning_customers + reactivated_customers = customers", name: parts_add_up}
*/
WITH active AS (
    SELECT
        customer_id,
        CAST(date_trunc('month', order_date) AS DATE) AS month,
        count(*) AS orders,
        count(*) FILTER (WHERE revenue IS NULL) AS without_rate,
        coalesce(sum(revenue), 0) AS revenue
    FROM core.orders
    WHERE NOT is_cancelled AND customer_id IS NOT NULL
    GROUP BY customer_id, CAST(date_trunc('month', order_date) AS DATE)
), seen AS (
    SELECT a.*, lag(a.month) OVER (PARTITION BY a.customer_id ORDER BY a.month) AS previous_month
    FROM active AS a
)
SELECT
    month,
    count(*) AS customers,
    count(*) FILTER (WHERE previous_month IS NULL) AS new_customers,
    count(*) FILTER (WHERE CAST(previous_month + INTERVAL 1 MONTH AS DATE) = month) AS returning_customers,
    count(*) FILTER (WHERE CAST(previous_month + INTERVAL 1 MONTH AS DATE) < month) AS reactivated_customers,
    CAST(sum(orders) AS BIGINT) AS orders,
    CAST(sum(without_rate) AS BIGINT) AS without_rate,
    CAST(sum(revenue) AS DECIMAL(18, 2)) AS revenue
FROM seen
GROUP BY month
