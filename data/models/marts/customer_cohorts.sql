/*
kind: full
owner: shop@demo.example
description: >
  What became of the customers whose first order was in cohort_month: who ordered again so many months_since, month 0
  being the first. Cancelled orders and those without a customer are left out; amounts are in the company's currency,
  before refunds that name no order; orders without_rate are missing in them.
grain: [cohort_month, months_since]
time_column: cohort_month
checks:
  - not_null: [cohort_month, months_since, customers, cohort_customers]
  - unique: [cohort_month, months_since]
  - expression: {sql: "customers <= cohort_customers", name: no_more_than_the_cohort}
*/
WITH orders AS (
    SELECT
        customer_id,
        CAST(date_trunc('month', order_date) AS DATE) AS month,
        revenue,
        CAST(date_trunc('month', min(order_date) OVER (PARTITION BY customer_id)) AS DATE) AS cohort_month
    FROM core.orders
    WHERE NOT is_cancelled AND customer_id IS NOT NULL
), months AS (
    SELECT
        cohort_month,
        CAST(
            (extract(YEAR FROM month) - extract(YEAR FROM cohort_month)) * 12
            + extract(MONTH FROM month) - extract(MONTH FROM cohort_month)
            AS INTEGER
        ) AS months_since,
        count(DISTINCT customer_id) AS customers,
        count(*) AS orders,
        count(*) FILTER (WHERE revenue IS NULL) AS without_rate,
        CAST(coalesce(sum(revenue), 0) AS DECIMAL(18, 2)) AS revenue
    FROM orders
    GROUP BY cohort_month, month
)
SELECT
    cohort_month,
    months_since,
    customers,
    max(customers) FILTER (WHERE months_since = 0) OVER (PARTITION BY cohort_month) AS cohort_customers,
    orders,
    without_rate,
    revenue,
    CAST(customers AS DOUBLE)
        / nullif(max(customers) FILTER (WHERE months_since = 0) OVER (PARTITION BY cohort_month), 0) AS retention
FROM months
