/*
kind: full
owner: shop@demo.example
description: How much of a variant there is at a location now, and what it cost. Items without a variant are kept.
grain: [inventory_level_id]
checks:
  - not_null: [inventory_level_id, inventory_item_id]
  - unique: [inventory_level_id]
  - expression: {sql: "on_hand_quantity >= 0", name: on_hand_not_negative}
    severity: warn
*/
WITH variant_of AS (
    SELECT *
    FROM staging.shopify__variants
    QUALIFY row_number() OVER (PARTITION BY inventory_item_id ORDER BY length(variant_id), variant_id) = 1
)
SELECT
    l.inventory_level_id, l.inventory_item_id, l.location_id, l.location,
    v.variant_id, v.product_id, p.title, p.product_type, coalesce(v.sku, i.sku) AS sku,
    coalesce(i.is_tracked, TRUE) AS is_tracked,
    i.unit_cost, v.price,
    l.available_quantity, l.committed_quantity, l.on_hand_quantity, l.updated_at
FROM staging.shopify__inventory_levels AS l
LEFT JOIN staging.shopify__inventory_items AS i ON i.inventory_item_id = l.inventory_item_id
LEFT JOIN variant_of AS v ON v.inventory_item_id = l.inventory_item_id
LEFT JOIN core.products AS p ON p.product_id = v.product_id
