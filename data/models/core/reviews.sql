/*
kind: full
owner: crm@demo.example
description: >
  One row per review that is not archived, tied to its order by the order's number. product_type and seller are
  those of the order's most expensive line, so that a review counts once.
grain: [review_id]
time_column: review_date
checks:
  - not_null: [review_id]
  - unique: [review_id]
  - not_null: [order_id]
    severity: warn
*/
WITH numbered AS (
    SELECT order_number, min(order_id) AS order_id
    FROM core.orders
    GROUP BY order_number
), main_line AS (
    SELECT order_id, product_id, product_type, seller
    FROM core.order_items
    QUALIFY row_number() OVER (PARTITION BY order_id ORDER BY item_amount DESC, line_id) = 1
)
SELECT
    r.review_id,
    r.external_id,
    n.order_id,
    o.customer_id,
    l.product_id,
    l.product_type,
    l.seller,
    o.country,
    CAST(r.score AS INTEGER) AS score,
    r.title,
    r.message,
    o.order_date,
    r.created_at,
    CAST(r.created_at AT TIME ZONE :timezone AS DATE) AS review_date
FROM staging.hubspot__reviews AS r
LEFT JOIN numbered AS n ON n.order_number = r.order_number
LEFT JOIN core.orders AS o ON o.order_id = n.order_id
LEFT JOIN main_line AS l ON l.order_id = n.order_id
WHERE NOT r.is_archived
