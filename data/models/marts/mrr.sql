/*
kind: full
owner: finance@demo.example
description: >
  Monthly recurring revenue by month and currency, from what invoices cover (core.subscription_months), and how it
  moved since the month before, customer by customer: new (never had one), reactivation, expansion, contraction,
  churn. mrr_home is in the company's currency, at the rate of the month's last day.
grain: [month, currency]
time_column: month
checks:
  - not_null: [month, currency, mrr]
  - unique: [month, currency]
  - expression:
      sql: mrr_before + new_mrr + reactivation_mrr + expansion_mrr - contraction_mrr - churned_mrr = mrr
      name: movements_add_up
*/
WITH amounts AS (
    SELECT month, customer_id, currency, sum(monthly_amount) AS amount
    FROM core.subscription_months
    WHERE monthly_amount > 0 AND customer_id IS NOT NULL
    GROUP BY month, customer_id, currency
), around AS (
    SELECT
        a.*,
        lag(month) OVER (PARTITION BY customer_id, currency ORDER BY month) AS previous_month,
        lag(amount) OVER (PARTITION BY customer_id, currency ORDER BY month) AS previous_amount,
        lead(month) OVER (PARTITION BY customer_id, currency ORDER BY month) AS next_month,
        max(month) OVER () AS last_month,
        CAST(month + INTERVAL 1 MONTH AS DATE) AS month_after
    FROM amounts AS a
), moves AS (
    SELECT
        month, currency, amount,
        CASE WHEN CAST(previous_month + INTERVAL 1 MONTH AS DATE) = month THEN previous_amount ELSE 0 END AS before,
        previous_month IS NULL AS is_new
    FROM around
    UNION ALL
    SELECT month_after, currency, 0, amount, FALSE
    FROM around
    WHERE month < last_month AND (next_month IS NULL OR next_month > month_after)
)
SELECT
    m.month, m.currency,
    CAST(sum(amount) AS DECIMAL(18, 2)) AS mrr,
    CAST(sum(amount * CASE WHEN m.currency = :currency THEN 1 ELSE r.rate END) AS DECIMAL(18, 2)) AS mrr_home,
    count(*) FILTER (WHERE amount > 0) AS customers,
    count(*) FILTER (WHERE amount > 0 AND is_new) AS new_customers,
    count(*) FILTER (WHERE amount = 0) AS churned_customers,
    CAST(sum(before) AS DECIMAL(18, 2)) AS mrr_before,
    CAST(coalesce(sum(amount) FILTER (WHERE is_new), 0) AS DECIMAL(18, 2)) AS new_mrr,
    CAST(coalesce(sum(amount) FILTER (WHERE before = 0 AND NOT is_new), 0) AS DECIMAL(18, 2)) AS reactivation_mrr,
    CAST(coalesce(sum(amount - before) FILTER (WHERE before > 0 AND amount > before), 0) AS DECIMAL(18, 2))
        AS expansion_mrr,
    CAST(coalesce(sum(before - amount) FILTER (WHERE amount > 0 AND amount < before), 0) AS DECIMAL(18, 2))
        AS contraction_mrr,
    CAST(coalesce(sum(before) FILTER (WHERE amount = 0), 0) AS DECIMAL(18, 2)) AS churned_mrr
FROM moves AS m
LEFT JOIN core.exchange_rates AS r
    ON r.currency = m.currency AND r.rate_date = CAST(m.month + INTERVAL 1 MONTH AS DATE) - 1
GROUP BY m.month, m.currency
