/*
kind: view
owner: finance@demo.example
description: Stripe subscriptions, renamed and cleaned; ended ones included.
grain: [subscription_id]
*/
SELECT
    id AS subscription_id,
    customer_id,
    status,
    upper(trim(currency)) AS currency,
    latest_invoice_id,
    coalesce(cancel_at_period_end, false) AS is_ending,
    start_date AS started_at,
    trial_end AS trial_ends_at,
    canceled_at AS cancelled_at,
    ended_at,
    created_at
FROM raw.stripe__subscriptions
