/*
kind: view
owner: shop@demo.example
description: Shopify refunded order lines, renamed and cleaned.
grain: [refund_line_id]
*/
SELECT
    id AS refund_line_id,
    refund_id,
    order_id,
    line_id,
    quantity,
    subtotal AS amount,
    lower(nullif(trim(restock_type), '')) AS restock_type
FROM raw.shopify__refund_lines
