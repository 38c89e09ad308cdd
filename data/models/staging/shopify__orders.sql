/*
kind: view
owner: shop@demo.example
description: Shopify orders, renamed and cleaned; amounts in the order's currency.
grain: [order_id]
*/
SELECT
    id AS order_id,
    nullif(ltrim(trim(name), '#'), '') AS order_number,
    customer_id,
    email AS email_hash,
    lower(nullif(trim(source_name), '')) AS channel,
    lower(nullif(trim(financial_status), '')) AS financial_status,
    lower(nullif(trim(fulfillment_status), '')) AS fulfillment_status,
    upper(trim(currency)) AS currency,
    subtotal AS subtotal_amount,
    coalesce(shipping, 0) AS shipping_amount,
    total AS total_amount,
    coalesce(refunded, 0) AS refunded_amount,
    created_at AS ordered_at,
    cancelled_at,
    updated_at
FROM raw.shopify__orders
