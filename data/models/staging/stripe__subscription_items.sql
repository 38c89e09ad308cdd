/*
kind: view
owner: finance@demo.example
description: Items of Stripe subscriptions, renamed and cleaned; amounts in whole minor units of the currency.
grain: [subscription_item_id]
*/
SELECT
    id AS subscription_item_id,
    subscription_id,
    price_id,
    product_id,
    unit_amount AS unit_amount_minor,
    coalesce(quantity, 1) AS quantity,
    interval AS billing_interval,
    interval_count AS billing_interval_count,
    current_period_start,
    current_period_end,
    created_at
FROM raw.stripe__subscription_items
