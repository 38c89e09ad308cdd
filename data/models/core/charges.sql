/*
kind: full
owner: finance@demo.example
description: >
  One row per attempt to take a payment through Stripe, in units of its currency. is_settled marks the ones that
  moved money; captured_amount is what they moved, refunded_amount what went back of it.
grain: [charge_id]
time_column: charge_date
checks:
  - not_null: [charge_id, currency, amount]
  - unique: [charge_id]
  - accepted: {column: status, values: [succeeded, pending, failed]}
*/
WITH charges AS (
    SELECT c.*, coalesce(u.unit, CAST(0.01 AS DECIMAL(18, 3))) AS unit
    FROM staging.stripe__charges AS c
    LEFT JOIN seeds.minor_units AS u ON u.currency = c.currency
), rated AS (
    SELECT
        c.*,
        CAST(c.charged_at AT TIME ZONE :timezone AS DATE) AS charge_date,
        c.status = 'succeeded' AND c.is_captured AS is_settled
    FROM charges AS c
)
SELECT
    c.charge_id, c.customer_id, c.order_ref AS order_number, c.payment_type, c.payment_method,
    c.status, c.is_captured, c.is_settled, c.is_disputed, c.failure_code, c.currency,
    CAST(c.amount_minor * c.unit AS DECIMAL(18, 2)) AS amount,
    CAST(CASE WHEN c.is_settled THEN coalesce(c.captured_minor, c.amount_minor) ELSE 0 END * c.unit
        AS DECIMAL(18, 2)) AS captured_amount,
    CAST(CASE WHEN c.is_settled THEN coalesce(c.refunded_minor, 0) ELSE 0 END * c.unit AS DECIMAL(18, 2))
        AS refunded_amount,
    CAST(b.fee_minor * c.unit AS DECIMAL(18, 2)) AS fee_amount,
    c.email_hash, c.payment_intent_id, c.charged_at, c.charge_date
FROM rated AS c
LEFT JOIN staging.stripe__balance_transactions AS b ON b.balance_transaction_id = c.balance_transaction_id
