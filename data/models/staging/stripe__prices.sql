/*
kind: view
owner: finance@demo.example
description: Stripe prices, renamed and cleaned; amounts in whole minor units of the currency.
grain: [price_id]
*/
SELECT
    id AS price_id,
    product_id,
    coalesce(active, false) AS is_active,
    type AS price_type,
    billing_scheme,
    unit_amount AS unit_amount_minor,
    upper(trim(currency)) AS currency,
    interval AS billing_interval,
    interval_count AS billing_interval_count,
    deleted AS is_deleted,
    created_at
FROM raw.stripe__prices
