/*
kind: view
owner: finance@demo.example
description: Stripe refunds, renamed and cleaned; amounts in whole minor units of the currency.
grain: [refund_id]
*/
SELECT
    id AS refund_id,
    charge_id,
    amount AS amount_minor,
    upper(trim(currency)) AS currency,
    status,
    lower(nullif(trim(reason), '')) AS reason,
    balance_transaction_id,
    created_at AS refunded_at
FROM raw.stripe__refunds
