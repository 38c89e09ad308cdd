/*
kind: full
owner: partners@demo.example
description: >
  What each referred order earns its partner: the tiers' rates on the part of the month's amount that the order adds,
  in order of time; rounded to the cent, halves up. Later refunds and cancellations do not move the tier reached.
grain: [order_id]
time_column: order_date
checks:
  - not_null: [order_id, partner_id, amount, reached_amount, commission]
  - unique: [order_id]
  - expression: {sql: "commission >= 0 AND commission <= amount", name: commission_within_order}
*/
WITH tiers AS (
    SELECT
        program, from_amount, rate,
        lead(from_amount) OVER (PARTITION BY program ORDER BY from_amount) AS to_amount
    FROM seeds.partner_tiers
), orders AS (
    SELECT
        order_id, partner_id, program, ordered_at, order_date, order_month, payable_on, amount, cancelled_at,
        cancelled_date,
        CAST(sum(amount) OVER (
            PARTITION BY partner_id, order_month ORDER BY ordered_at, order_id ROWS UNBOUNDED PRECEDING
        ) AS DECIMAL(18, 2)) AS reached_amount
    FROM core.partner_orders
    WHERE amount > 0
), earned AS (
    SELECT
        o.order_id,
        sum((least(o.reached_amount, t.to_amount) - greatest(o.reached_amount - o.amount, t.from_amount)) * t.rate)
            AS commission
    FROM orders AS o
    JOIN tiers AS t
        ON t.program = o.program
        AND t.from_amount < o.reached_amount
        AND (t.to_amount IS NULL OR t.to_amount > o.reached_amount - o.amount)
    GROUP BY o.order_id
)
SELECT
    o.order_id, o.partner_id, o.program, o.ordered_at, o.order_date, o.order_month, o.payable_on, o.amount,
    o.reached_amount,
    CAST(coalesce(e.commission, 0) AS DECIMAL(18, 2)) AS commission,
    o.cancelled_at, o.cancelled_date
FROM orders AS o
LEFT JOIN earned AS e ON e.order_id = o.order_id
