/*
kind: full
owner: finance@demo.example
description: >
  What each subscription is worth a month, for every month at whose end an invoice's line covers it: the line's
  amount by the interval of its price (a year is 12 months, a month 30.4375 days), or as billed without one.
  Drafts, void and deleted invoices do not count, nor do prorations: a change within a period counts from the next
  one. A month counts once an invoice was made in a later one, in the company's time zone.
grain: [month, subscription_id]
time_column: month
checks:
  - not_null: [month, subscription_id, currency, monthly_amount]
  - unique: [month, subscription_id]
*/
WITH lines AS (
    SELECT
        l.subscription_id, i.customer_id, l.currency,
        CAST(l.amount_minor * coalesce(u.unit, CAST(0.01 AS DECIMAL(18, 3))) AS DECIMAL(18, 2)) AS amount,
        CASE p.billing_interval
            WHEN 'year' THEN CAST(0.08333333 AS DECIMAL(18, 8))
            WHEN 'week' THEN CAST(4.34821429 AS DECIMAL(18, 8))
            WHEN 'day' THEN CAST(30.4375 AS DECIMAL(18, 8))
            ELSE CAST(1 AS DECIMAL(18, 8))
        END AS months_of,
        CAST(1.0 / coalesce(nullif(p.billing_interval_count, 0), 1) AS DECIMAL(18, 8)) AS share,
        CAST(l.period_start AT TIME ZONE :timezone AS DATE) AS first_day,
        CAST(l.period_end AT TIME ZONE :timezone AS DATE) AS end_day,
        CAST(coalesce(i.finalized_at, i.created_at) AT TIME ZONE :timezone AS DATE) AS invoiced_day
    FROM staging.stripe__invoice_lines AS l
    JOIN staging.stripe__invoices AS i ON i.invoice_id = l.invoice_id
    LEFT JOIN staging.stripe__prices AS p ON p.price_id = l.price_id
    LEFT JOIN seeds.minor_units AS u ON u.currency = l.currency
    WHERE l.subscription_id IS NOT NULL AND NOT l.is_proration
        AND i.is_deleted IS NOT TRUE AND coalesce(i.status, '') NOT IN ('draft', 'void')
), months AS (
    SELECT
        l.*,
        CAST(date_trunc('month', max(l.invoiced_day) OVER ()) AS DATE) AS newest_month,
        CAST(date_trunc('month', l.first_day) + o.n * INTERVAL 1 MONTH AS DATE) AS month
    FROM lines AS l
    CROSS JOIN generate_series(0, 36) AS o(n)
)
SELECT
    month,
    subscription_id,
    min(customer_id) AS customer_id,
    min(currency) AS currency,
    CAST(sum(CAST(CAST(amount * months_of AS DECIMAL(18, 4)) * share AS DECIMAL(18, 4))) AS DECIMAL(18, 2)) AS monthly_amount
FROM months
WHERE month < newest_month
    AND CAST(month + INTERVAL 1 MONTH AS DATE) - 1 >= first_day
    AND CAST(month + INTERVAL 1 MONTH AS DATE) - 1 < end_day
GROUP BY month, subscription_id
