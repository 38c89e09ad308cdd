/*
kind: full
owner: shop@demo.example
description: >
  What is in stock now, by variant over all locations, with its worth at cost, and how many days it lasts at the pace
  of the product's last 28 days of sales up to the newest order that was not cancelled (null when nothing sold); an
  order dated later than the newest change does not count.
grain: [inventory_item_id]
checks:
  - not_null: [inventory_item_id, available_quantity, on_hand_quantity]
  - unique: [inventory_item_id]
*/
WITH newest AS (
    SELECT coalesce(max(o.order_date) FILTER (WHERE o.ordered_at <= c.changed_at), max(o.order_date)) AS last_date
    FROM core.orders AS o
    CROSS JOIN (SELECT max(updated_at) AS changed_at FROM core.orders) AS c
    WHERE NOT o.is_cancelled
), pace AS (
    SELECT i.product_id, sum(i.quantity) AS items
    FROM core.order_items AS i
    CROSS JOIN newest AS n
    WHERE NOT i.is_cancelled AND i.order_date > n.last_date - 28 AND i.order_date <= n.last_date
    GROUP BY i.product_id
), stock AS (
    SELECT
        inventory_item_id,
        min(product_id) AS product_id, min(title) AS title, min(product_type) AS product_type, min(sku) AS sku,
        count(*) AS locations,
        sum(available_quantity) AS available_quantity,
        sum(committed_quantity) AS committed_quantity,
        sum(on_hand_quantity) AS on_hand_quantity,
        min(unit_cost) AS unit_cost,
        bool_or(is_tracked) AS is_tracked
    FROM core.inventory
    GROUP BY inventory_item_id
), products AS (
    SELECT s.*, sum(available_quantity) OVER (PARTITION BY product_id) AS product_available FROM stock AS s
)
SELECT
    s.inventory_item_id, s.product_id, s.title, s.product_type, s.sku, s.locations,
    CAST(s.available_quantity AS BIGINT) AS available_quantity,
    CAST(s.committed_quantity AS BIGINT) AS committed_quantity,
    CAST(s.on_hand_quantity AS BIGINT) AS on_hand_quantity,
    s.unit_cost,
    CAST(s.on_hand_quantity * s.unit_cost AS DECIMAL(18, 2)) AS stock_value,
    s.is_tracked AND s.available_quantity <= 0 AS is_out_of_stock,
    CAST(coalesce(p.items, 0) AS BIGINT) AS product_sold_28d,
    CASE WHEN p.items > 0 THEN CAST(greatest(s.product_available, 0) AS DOUBLE) * 28 / nullif(p.items, 0) END
        AS product_days_of_cover
FROM products AS s
LEFT JOIN pace AS p ON p.product_id = s.product_id
