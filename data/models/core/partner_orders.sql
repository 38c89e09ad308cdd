/*
kind: full
owner: partners@demo.example
description: >
  Orders that partners referred, one row each: the last click of the same person before the order, within the window
  of the clicked partner's program. amount: the goods after discounts, without shipping and tax, in the company's
  currency; null if there is no rate. Cancelled orders are among them: their commission is taken back.
grain: [order_id]
time_column: order_date
checks:
  - not_null: [order_id, partner_id, click_id, order_date, payable_on]
  - unique: [order_id]
  - relationship: {column: partner_id, to: core.partner_terms.partner_id}
  - expression: {sql: "amount IS NOT NULL", name: amount_known}
    severity: warn
*/
WITH clicked AS (
    SELECT
        o.order_id, c.partner_id, c.program, c.click_id, c.person_id, c.clicked_at, o.ordered_at, o.order_date,
        o.order_date + CAST(t.hold_days AS INTEGER) AS payable_on,
        o.item_amount_home, o.cancelled_at,
        row_number() OVER (
            PARTITION BY o.order_id ORDER BY c.clicked_at DESC, c.position DESC, c.click_id
        ) AS nth
    FROM core.orders AS o
    LEFT JOIN core.person_links AS s ON s.source = 'shop' AND s.record_id = o.customer_id
    LEFT JOIN core.person_links AS g ON g.source = 'guest' AND g.record_id = o.email_hash
    JOIN core.partner_clicks AS c
        ON c.person_id = coalesce(s.person_id, g.person_id) AND c.clicked_at <= o.ordered_at
    JOIN core.partner_terms AS t
        ON t.partner_id = c.partner_id
        AND c.clicked_at > o.ordered_at - t.window_days * 24 * INTERVAL 1 HOUR
        AND (t.left_on IS NULL OR o.order_date <= t.left_on)
)
SELECT
    order_id, partner_id, program, click_id, person_id, clicked_at, ordered_at, order_date,
    CAST(date_trunc('month', order_date) AS DATE) AS order_month,
    payable_on,
    CASE WHEN item_amount_home < 0 THEN CAST(0 AS DECIMAL(18, 2)) ELSE item_amount_home END AS amount,
    cancelled_at,
    CAST(cancelled_at AT TIME ZONE :timezone AS DATE) AS cancelled_date
FROM clicked
WHERE nth = 1
