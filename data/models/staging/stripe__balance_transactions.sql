/*
kind: view
owner: finance@demo.example
description: Movements of the Stripe balance with their fees; amounts in whole minor units of the currency.
grain: [balance_transaction_id]
*/
SELECT
    id AS balance_transaction_id,
    lower(trim(type)) AS movement,
    lower(trim(reporting_category)) AS category,
    source_id,
    amount AS amount_minor,
    fee AS fee_minor,
    net AS net_minor,
    upper(trim(currency)) AS currency,
    available_on AS available_at,
    created_at AS moved_at
FROM raw.stripe__balance_transactions
