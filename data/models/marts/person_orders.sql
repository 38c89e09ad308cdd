/*
kind: view
owner: privacy@demo.example
description: >
  Orders that were not cancelled by person, those of guests, and of customers that are not loaded, by their address.
  Refunds that name no order are deducted; orders and refunds without_rate are missing in revenue. segment and country
  are each those of the newest order that has one.
grain: [person_id]
*/
WITH moves AS (
    SELECT customer_id, email_hash, order_id, order_date, ordered_at, country, revenue
    FROM core.orders
    WHERE NOT is_cancelled
    UNION ALL
    SELECT
        customer_id, NULL AS email_hash, NULL AS order_id, NULL AS order_date, NULL AS ordered_at, NULL AS country,
        -amount_home AS revenue
    FROM core.refunds
    WHERE NOT is_linked
), linked AS (
    SELECT coalesce(s.person_id, g.person_id) AS person_id, m.*, v.segment
    FROM moves AS m
    LEFT JOIN core.person_links AS s ON s.source = 'shop' AND s.record_id = m.customer_id
    LEFT JOIN core.person_links AS g ON g.source = 'guest' AND g.record_id = m.email_hash
    LEFT JOIN marts.customer_value AS v ON v.customer_id = m.customer_id
    WHERE coalesce(s.person_id, g.person_id) IS NOT NULL
), orders AS (
    SELECT
        l.*,
        row_number() OVER (
            PARTITION BY person_id, segment IS NULL ORDER BY ordered_at DESC NULLS LAST, order_id NULLS LAST
        ) = 1 AS gives_segment,
        row_number() OVER (
            PARTITION BY person_id, country IS NULL ORDER BY ordered_at DESC NULLS LAST, order_id NULLS LAST
        ) = 1 AS gives_country
    FROM linked AS l
)
SELECT
    person_id,
    count(order_id) AS orders,
    count(*) FILTER (WHERE revenue IS NULL) AS without_rate,
    coalesce(sum(revenue), 0) AS revenue,
    min(order_date) AS first_order_date,
    max(order_date) AS last_order_date,
    max(ordered_at) AS last_order_at,
    min(segment) FILTER (WHERE gives_segment) AS segment,
    min(country) FILTER (WHERE gives_country) AS country
FROM orders
GROUP BY person_id
