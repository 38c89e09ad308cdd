/*
kind: full
owner: marketing@demo.example
description: >
  One row per conversion and touch of the same person before it, within the conversion's window, in order of time.
  A conversion without a touch has one row of the channel (none). amount is null when it is unknown.
grain: [conversion_id, position]
time_column: conversion_date
checks:
  - not_null: [conversion_id, position, touches, channel]
  - unique: [conversion_id, position]
*/
WITH touched AS (
    SELECT
        c.conversion_id, c.kind, c.person_id, c.conversion_date, c.amount,
        t.touch_id, coalesce(t.channel, '(none)') AS channel, t.touched_at
    FROM core.attribution_conversions AS c
    LEFT JOIN core.attribution_touches AS t
        ON t.person_id = c.person_id
        AND t.touched_at <= c.converted_at
        AND t.touched_at > c.converted_at - c.window_hours * INTERVAL 1 HOUR
)
SELECT
    conversion_id, kind, person_id, conversion_date, amount, touch_id, channel, touched_at,
    row_number() OVER (PARTITION BY conversion_id ORDER BY touched_at, touch_id) AS position,
    count(*) OVER (PARTITION BY conversion_id) AS touches
FROM touched
