/*
kind: full
owner: marketing@demo.example
description: >
  One row per campaign and contact. The first e-mail decides arm and time; orders of the same person (by hashed
  address) count for 14 days after it. is_crossover marks contacts who got more than one arm, is_complete those whose
  14 days are over for the newest order in the shop.
grain: [experiment, unit_id]
checks:
  - not_null: [experiment, unit_id, variant, sent_at, converted_14d, spend_14d]
  - unique: [experiment, unit_id]
  - expression: {sql: "NOT is_crossover", name: one_arm_per_unit}
    severity: warn
*/
WITH sends AS (
    SELECT
        campaign AS experiment,
        contact_id AS unit_id,
        variant,
        email_hash,
        sent_at,
        min(variant) OVER unit <> max(variant) OVER unit AS is_crossover,
        bool_or(is_opened) OVER unit AS opened,
        bool_or(is_clicked) OVER unit AS clicked
    FROM core.email_sends
    WHERE contact_id IS NOT NULL AND sent_at IS NOT NULL
    WINDOW unit AS (PARTITION BY campaign, contact_id)
    QUALIFY row_number() OVER (PARTITION BY campaign, contact_id ORDER BY sent_at, length(send_id), send_id) = 1
), units AS (
    SELECT s.*, coalesce(s.email_hash, c.email_hash) AS person_hash
    FROM sends AS s
    LEFT JOIN core.contacts AS c ON c.contact_id = s.unit_id
), spending AS (
    SELECT u.experiment, u.unit_id, sum(o.revenue) AS spend
    FROM units AS u
    JOIN core.orders AS o
        ON o.email_hash = u.person_hash
        AND o.ordered_at >= u.sent_at
        AND o.ordered_at < u.sent_at + INTERVAL 336 HOUR
    WHERE NOT o.is_cancelled
    GROUP BY u.experiment, u.unit_id
), newest AS (
    SELECT max(ordered_at) AS last_at FROM core.orders
)
SELECT
    u.experiment, u.unit_id, u.variant, u.sent_at,
    s.unit_id IS NOT NULL AS converted_14d,
    CAST(coalesce(s.spend, 0) AS DECIMAL(18, 2)) AS spend_14d,
    u.opened, u.clicked, u.is_crossover,
    coalesce(n.last_at >= u.sent_at + INTERVAL 336 HOUR, FALSE) AS is_complete
FROM units AS u
CROSS JOIN newest AS n
LEFT JOIN spending AS s ON s.experiment = u.experiment AND s.unit_id = u.unit_id
