/*
kind: view
owner: shop@demo.example
description: Shopify variants, renamed and cleaned.
grain: [variant_id]
*/
SELECT
    id AS variant_id,
    product_id,
    inventory_item_id,
    nullif(trim(title), '') AS title,
    nullif(trim(sku), '') AS sku,
    nullif(trim(barcode), '') AS barcode,
    price,
    compare_at_price,
    position,
    inventory_quantity AS available_quantity,
    created_at,
    updated_at
FROM raw.shopify__variants
