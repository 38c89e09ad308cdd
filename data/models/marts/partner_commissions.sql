/*
kind: full
owner: partners@demo.example
description: >
  Lines of partners' accounts: what an order earned, and for each refund and the cancellation what is taken back, at
  the rate the order earned. A refund is taken to be of goods until they are used up; an order given back in full
  leaves nothing. Parts of a commission are rounded to the cent, halves up, so that they add up to it.
grain: [line_id]
time_column: line_date
checks:
  - not_null: [line_id, partner_id, order_id, line_date, payable_on, base_amount, amount]
  - unique: [line_id]
*/
WITH moves AS (
    SELECT
        order_id, 'refund:' || refund_id AS line_id, 1 AS rank, refunded_at AS moved_at, refund_date AS move_date,
        amount_home AS amount
    FROM core.refunds
    WHERE order_id IS NOT NULL AND amount_home > 0
    UNION ALL
    SELECT order_id, 'cancellation:' || order_id, 2, cancelled_at, cancelled_date, amount
    FROM core.partner_earnings
    WHERE cancelled_at IS NOT NULL
), given_back AS (
    SELECT
        e.order_id, e.partner_id, e.program, m.line_id, m.rank, coalesce(m.moved_at, e.ordered_at) AS moved_at,
        coalesce(m.move_date, e.order_date) AS move_date, e.payable_on,
        CAST(e.commission * 100 AS BIGINT) AS earned,
        CAST(e.amount * 100 AS BIGINT) AS whole,
        CAST(100 * least(e.amount, sum(m.amount) OVER (
            PARTITION BY e.order_id ORDER BY coalesce(m.moved_at, e.ordered_at), m.rank, m.line_id
            ROWS UNBOUNDED PRECEDING
        )) AS BIGINT) AS back
    FROM core.partner_earnings AS e
    JOIN moves AS m ON m.order_id = e.order_id
), shared AS (
    SELECT g.*, 2 * earned * back + whole AS numerator, 2 * whole AS denominator
    FROM given_back AS g
), taken AS (
    SELECT s.*, CAST(CAST(numerator - numerator % nullif(denominator, 0) AS DOUBLE) / nullif(denominator, 0) AS BIGINT) AS share
    FROM shared AS s
), parts AS (
    SELECT
        order_id, partner_id, program, line_id, move_date, payable_on,
        back - coalesce(lag(back) OVER (PARTITION BY order_id ORDER BY moved_at, rank, line_id), 0) AS back,
        share - coalesce(lag(share) OVER (PARTITION BY order_id ORDER BY moved_at, rank, line_id), 0) AS share
    FROM taken
)
SELECT
    'order:' || order_id AS line_id, partner_id, program, 'commission' AS kind, order_id, order_date AS line_date,
    payable_on, amount AS base_amount, commission AS amount, :currency AS currency
FROM core.partner_earnings
UNION ALL
SELECT
    line_id, partner_id, program, 'clawback', order_id, move_date, greatest(payable_on, move_date),
    CAST(-back * 0.01 AS DECIMAL(18, 2)), CAST(-share * 0.01 AS DECIMAL(18, 2)), :currency
FROM parts
WHERE back > 0
