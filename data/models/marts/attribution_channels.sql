/*
kind: full
owner: marketing@demo.example
description: >
  Conversions and their amounts by channel and month under four rules: the first touch, the last, all alike (linear),
  and position (40 % the first, 40 % the last, the rest between; two touches share alike). Amounts are handed out in
  cents so that each conversion's add up to its amount: a touch gets the difference of the running shares, cut.
  Conversions without_rate, whose amount is unknown, are missing in it.
grain: [rule, kind, conversion_month, channel]
time_column: conversion_month
checks:
  - unique: [rule, kind, conversion_month, channel]
  - reconcile:
      name: every_cent
      measure: sum(amount)
      to: marts.attribution_touchpoints
      to_measure: 4 * sum(amount)
      to_where: position = 1
*/
WITH rules AS (
    SELECT 'first' AS rule UNION ALL SELECT 'last' UNION ALL SELECT 'linear' UNION ALL SELECT 'position'
), weighted AS (
    SELECT
        r.rule, t.kind, t.channel, t.conversion_id, t.position,
        CAST(date_trunc('month', t.conversion_date) AS DATE) AS conversion_month,
        CAST(t.amount * 100 AS BIGINT) AS cents,
        CASE r.rule
            WHEN 'first' THEN CASE WHEN t.position = 1 THEN 1 ELSE 0 END
            WHEN 'last' THEN CASE WHEN t.position = t.touches THEN 1 ELSE 0 END
            WHEN 'linear' THEN 1
            ELSE CASE WHEN t.touches > 2 AND t.position IN (1, t.touches) THEN 2 * (t.touches - 2) ELSE 1 END
        END AS weight
    FROM marts.attribution_touchpoints AS t
    CROSS JOIN rules AS r
), running AS (
    SELECT
        w.*,
        CAST(sum(weight) OVER (PARTITION BY rule, conversion_id) AS BIGINT) AS whole,
        CAST(sum(weight) OVER (PARTITION BY rule, conversion_id ORDER BY position) AS BIGINT) AS so_far
    FROM weighted AS w
), shared AS (
    SELECT
        r.*,
        CAST(CAST(weight AS DOUBLE) / nullif(whole, 0) AS DECIMAL(28, 12)) AS share,
        cents * so_far - (cents * so_far) % nullif(whole, 0) AS upper_part,
        cents * (so_far - weight) - (cents * (so_far - weight)) % nullif(whole, 0) AS lower_part
    FROM running AS r
)
SELECT
    rule, kind, conversion_month, channel,
    CAST(CAST(sum(share) AS DECIMAL(28, 9)) AS DOUBLE) AS conversions,
    CAST(CAST(coalesce(sum(share) FILTER (WHERE cents IS NULL), 0) AS DECIMAL(28, 9)) AS DOUBLE) AS without_rate,
    CAST(
        coalesce(sum(CAST(CAST(upper_part - lower_part AS DOUBLE) / nullif(whole, 0) AS DECIMAL(18, 0))), 0) * 0.01
        AS DECIMAL(18, 2)
    ) AS amount
FROM shared
GROUP BY rule, kind, conversion_month, channel
