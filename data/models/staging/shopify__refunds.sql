/*
kind: view
owner: shop@demo.example
description: Shopify refunds, renamed and cleaned.
grain: [refund_id]
*/
SELECT
    id AS refund_id,
    order_id,
    amount,
    lower(nullif(trim(note), '')) AS reason,
    created_at AS refunded_at
FROM raw.shopify__refunds
