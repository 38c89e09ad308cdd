/*
kind: view
owner: shop@demo.example
description: Shopify stock by item and location, renamed and cleaned.
grain: [inventory_level_id]
*/
SELECT
    id AS inventory_level_id,
    inventory_item_id,
    location_id,
    nullif(trim(location), '') AS location,
    coalesce(available, 0) AS available_quantity,
    coalesce(committed, 0) AS committed_quantity,
    coalesce(on_hand, 0) AS on_hand_quantity,
    updated_at
FROM raw.shopify__inventory_levels
