/*
kind: view
owner: finance@demo.example
description: Stripe invoices, renamed and cleaned; amounts in whole minor units of the currency.
grain: [invoice_id]
*/
SELECT
    id AS invoice_id,
    nullif(trim(number), '') AS invoice_number,
    customer_id,
    subscription_id,
    customer_email AS email_hash,
    status,
    billing_reason,
    upper(trim(currency)) AS currency,
    subtotal AS subtotal_minor,
    total AS total_minor,
    amount_due AS due_minor,
    amount_paid AS paid_minor,
    amount_remaining AS remaining_minor,
    period_start,
    period_end,
    due_date AS due_at,
    finalized_at,
    paid_at,
    deleted AS is_deleted,
    created_at
FROM raw.stripe__invoices
