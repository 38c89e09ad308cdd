/*
kind: view
owner: shop@demo.example
description: Shopify inventory items, renamed and cleaned.
grain: [inventory_item_id]
*/
SELECT
    id AS inventory_item_id,
    nullif(trim(sku), '') AS sku,
    tracked AS is_tracked,
    requires_shipping,
    unit_cost,
    created_at,
    updated_at
FROM raw.shopify__inventory_items
