/*
kind: view
owner: privacy@demo.example
description: >
  Orders that were not cancelled by person, those of guests by their address. Refunds that name no order are deducted;
  segment and country are those of the newest order.
grain: [person_id]
*/
WITH moves AS (
    SELECT
        CASE WHEN customer_id IS NULL THEN 'guest' ELSE 'shop' END AS source,
        coalesce(customer_id, email_hash) AS record_id,
        customer_id, order_id, order_date, ordered_at, country, coalesce(revenue, 0) AS revenue
    FROM core.orders
    WHERE NOT is_cancelled
    UNION ALL
    SELECT
        'shop' AS source, customer_id AS record_id, customer_id, NULL AS order_id, NULL AS order_date,
        NULL AS ordered_at, NULL AS country, -coalesce(amount_home, 0) AS revenue
    FROM core.refunds
    WHERE NOT is_linked
), orders AS (
    SELECT
        l.person_id, m.*, v.segment,
        row_number() OVER (PARTITION BY l.person_id ORDER BY m.ordered_at DESC NULLS LAST, m.order_id) = 1 AS is_newest
    FROM moves AS m
    JOIN core.person_links AS l ON l.source = m.source AND l.record_id = m.record_id
    LEFT JOIN marts.customer_value AS v ON v.customer_id = m.customer_id
)
SELECT
    person_id,
    count(order_id) AS orders,
    sum(revenue) AS revenue,
    min(order_date) AS first_order_date,
    max(order_date) AS last_order_date,
    max(ordered_at) AS last_order_at,
    min(segment) FILTER (WHERE is_newest) AS segment,
    min(country) FILTER (WHERE is_newest) AS country
FROM orders
GROUP BY person_id
