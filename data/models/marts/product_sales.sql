/*
kind: full
owner: shop@demo.example
description: >
  Sales by product and month, in the company's currency at the rate of the day. Cancelled orders and those in a
  currency without a rate are left out, refunds are not deducted.
grain: [product_id, sale_month]
time_column: sale_month
checks:
  - not_null: [product_id, sale_month, items, item_amount]
  - unique: [product_id, sale_month]
*/
SELECT
    coalesce(product_id, '(none)') AS product_id,
    CAST(date_trunc('month', order_date) AS DATE) AS sale_month,
    min(title) AS title,
    min(product_type) AS product_type,
    min(seller) AS seller,
    count(DISTINCT order_id) AS orders,
    count(DISTINCT customer_id) AS customers,
    CAST(sum(quantity) AS BIGINT) AS items,
    CAST(sum(CAST(discount_amount * home_rate AS DECIMAL(18, 2))) AS DECIMAL(18, 2)) AS discount_amount,
    CAST(sum(item_amount_home) AS DECIMAL(18, 2)) AS item_amount
FROM core.order_items
WHERE NOT is_cancelled AND home_rate IS NOT NULL
GROUP BY coalesce(product_id, '(none)'), CAST(date_trunc('month', order_date) AS DATE)
