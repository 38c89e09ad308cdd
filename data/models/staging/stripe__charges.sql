/*
kind: view
owner: finance@demo.example
description: Stripe charges, renamed and cleaned; amounts in whole minor units of the currency.
grain: [charge_id]
*/
SELECT
    id AS charge_id,
    customer_id,
    nullif(trim(order_ref), '') AS order_ref,
    payment_sequential,
    lower(coalesce(nullif(trim(payment_type), ''), payment_method_type)) AS payment_type,
    lower(payment_method_type) AS payment_method,
    amount AS amount_minor,
    amount_captured AS captured_minor,
    amount_refunded AS refunded_minor,
    upper(trim(currency)) AS currency,
    status,
    coalesce(captured, false) AS is_captured,
    coalesce(disputed, false) AS is_disputed,
    failure_code,
    billing_email AS email_hash,
    payment_intent_id,
    balance_transaction_id,
    created_at AS charged_at
FROM raw.stripe__charges
