/*
kind: view
owner: finance@demo.example
description: Lines of Stripe invoices, renamed and cleaned; amounts in whole minor units of the currency.
grain: [invoice_line_id]
*/
SELECT
    id AS invoice_line_id,
    invoice_id,
    subscription_id,
    price_id,
    amount AS amount_minor,
    upper(trim(currency)) AS currency,
    coalesce(quantity, 1) AS quantity,
    coalesce(proration, FALSE) AS is_proration,
    period_start,
    period_end
FROM raw.stripe__invoice_lines
