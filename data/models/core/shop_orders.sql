/*
kind: view
owner: shop@demo.example
description: Orders of the web shop with the sums of their lines, in the shape of core.orders.
grain: [order_id]
*/
WITH lines AS (
    SELECT
        order_id,
        sum(quantity) AS items,
        sum(quantity * unit_price) AS gross_amount,
        sum(discount_amount) AS discount_amount
    FROM staging.shopify__order_lines
    GROUP BY order_id
)
SELECT
    o.order_id, o.order_number, o.customer_id, o.email_hash,
    CAST(NULL AS VARCHAR) AS country,
    o.channel, o.financial_status, o.fulfillment_status, o.currency,
    CAST(coalesce(l.items, 0) AS BIGINT) AS items,
    CAST(coalesce(l.gross_amount, 0) AS DECIMAL(18, 2)) AS gross_amount,
    CAST(coalesce(l.discount_amount, 0) AS DECIMAL(18, 2)) AS discount_amount,
    o.subtotal_amount, o.shipping_amount, o.total_amount, o.refunded_amount,
    o.ordered_at, o.cancelled_at, o.updated_at
FROM staging.shopify__orders AS o
LEFT JOIN lines AS l ON l.order_id = o.order_id
