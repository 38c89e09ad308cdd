/*
kind: view
owner: marketing@demo.example
description: >
  What marketing is to bring about, one row each: orders that were not cancelled and won deals of persons we know.
  An order's amount is null when its rate or total is unknown; a deal without one counts 0.
  window_hours is how far back a touch may lie: 30 days for an order, 180 for a deal.
grain: [conversion_id]
*/
SELECT
    'order:' || o.order_id AS conversion_id,
    'order' AS kind,
    coalesce(s.person_id, g.person_id) AS person_id,
    o.ordered_at AS converted_at,
    o.order_date AS conversion_date,
    CAST(o.revenue AS DECIMAL(18, 2)) AS amount,
    720 AS window_hours
FROM core.orders AS o
LEFT JOIN core.person_links AS s ON s.source = 'shop' AND s.record_id = o.customer_id
LEFT JOIN core.person_links AS g ON g.source = 'guest' AND g.record_id = o.email_hash
WHERE NOT o.is_cancelled AND o.ordered_at IS NOT NULL AND coalesce(s.person_id, g.person_id) IS NOT NULL
UNION ALL
SELECT
    'deal:' || d.deal_id AS conversion_id,
    'deal' AS kind,
    l.person_id,
    d.closed_at AS converted_at,
    d.closed_date AS conversion_date,
    CAST(coalesce(d.amount, 0) AS DECIMAL(18, 2)) AS amount,
    4320 AS window_hours
FROM core.deals AS d
JOIN core.person_links AS l ON l.source = 'crm' AND l.record_id = d.contact_id
WHERE d.is_won AND d.closed_at IS NOT NULL
