/*
kind: full
owner: finance@demo.example
description: >
  What one unit of a currency is worth in the company's, day by day: the newest rate on or before the day, taken
  for at most 92 days. After that there is none: amounts in that currency are null and not guessed. A euro is one
  euro on every day that has a rate; the table need not say so.
grain: [rate_date, currency]
time_column: rate_date
checks:
  - not_null: [rate_date, currency, rate]
  - unique: [rate_date, currency]
  - expression: {sql: "rate > 0", name: rate_positive}
*/
WITH spans AS (
    SELECT
        currency,
        per_euro,
        rate_date,
        lead(rate_date) OVER (PARTITION BY currency ORDER BY rate_date) AS next_date
    FROM seeds.exchange_rates
    WHERE currency <> 'EUR'
), quoted AS (
    SELECT
        s.currency,
        s.per_euro,
        s.rate_date + CAST(o.n AS INTEGER) AS rate_date
    FROM spans AS s
    CROSS JOIN generate_series(0, 91) AS o(n)
    WHERE s.next_date IS NULL OR s.rate_date + CAST(o.n AS INTEGER) < s.next_date
), days AS (
    SELECT currency, per_euro, rate_date FROM quoted
    UNION ALL
    SELECT DISTINCT 'EUR', CAST(1 AS DECIMAL(18, 8)), rate_date FROM quoted
)
SELECT
    d.rate_date,
    d.currency,
    CAST(h.per_euro / nullif(d.per_euro, 0) AS DECIMAL(28, 8)) AS rate
FROM days AS d
JOIN days AS h ON h.rate_date = d.rate_date AND h.currency = :currency
