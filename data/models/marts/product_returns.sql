/*
kind: full
owner: shop@demo.example
description: >
  Sold and given back by product, over all time: pieces, amounts in the company's currency, the share of pieces that
  came back and how many days that took. Cancelled orders are left out of what was sold.
grain: [product_id]
checks:
  - not_null: [product_id, items_sold, items_returned]
  - unique: [product_id]
*/
WITH sold AS (
    SELECT
        coalesce(product_id, '(none)') AS product_id,
        min(title) AS title, min(product_type) AS product_type,
        sum(quantity) AS items, sum(item_amount_home) AS amount
    FROM core.order_items
    WHERE NOT is_cancelled
    GROUP BY coalesce(product_id, '(none)')
), returned AS (
    SELECT
        coalesce(product_id, '(none)') AS product_id,
        min(title) AS title, min(product_type) AS product_type,
        sum(quantity) AS items, sum(amount_home) AS amount,
        CAST(sum(days_to_return) AS DOUBLE) / nullif(count(days_to_return), 0) AS days
    FROM core.returns
    GROUP BY coalesce(product_id, '(none)')
)
SELECT
    coalesce(s.product_id, r.product_id) AS product_id,
    coalesce(s.title, r.title) AS title,
    coalesce(s.product_type, r.product_type) AS product_type,
    CAST(coalesce(s.items, 0) AS BIGINT) AS items_sold,
    CAST(coalesce(r.items, 0) AS BIGINT) AS items_returned,
    CAST(coalesce(s.amount, 0) AS DECIMAL(18, 2)) AS sold_amount,
    CAST(coalesce(r.amount, 0) AS DECIMAL(18, 2)) AS returned_amount,
    CAST(coalesce(r.items, 0) AS DOUBLE) / nullif(s.items, 0) AS return_rate,
    r.days AS average_days_to_return
FROM sold AS s
FULL JOIN returned AS r ON r.product_id = s.product_id
