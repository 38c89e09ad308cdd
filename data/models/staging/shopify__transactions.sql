/*
kind: view
owner: shop@demo.example
description: Shopify payment transactions, renamed and cleaned.
grain: [payment_id]
*/
SELECT
    id AS payment_id,
    order_id,
    lower(nullif(trim(kind), '')) AS kind,
    lower(nullif(trim(status), '')) AS status,
    lower(nullif(trim(gateway), '')) AS gateway,
    amount,
    created_at AS paid_at
FROM raw.shopify__transactions
