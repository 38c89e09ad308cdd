/*
kind: view
owner: finance@demo.example
description: Payments of Stripe invoices, renamed and cleaned; amounts in whole minor units of the currency.
grain: [invoice_payment_id]
*/
SELECT
    id AS invoice_payment_id,
    invoice_id,
    payment_type,
    payment_intent_id,
    charge_id,
    status,
    amount_requested AS requested_minor,
    coalesce(amount_paid, 0) AS paid_minor,
    upper(trim(currency)) AS currency,
    coalesce(is_default, false) AS is_default,
    paid_at,
    created_at
FROM raw.stripe__invoice_payments
