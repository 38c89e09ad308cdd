/*
kind: full
owner: partners@demo.example
description: >
  One row per partner with the terms of its program. Programs in another currency than the company's take no part.
grain: [partner_id]
checks:
  - not_null: [partner_id, code, program, joined_on]
  - unique: [partner_id]
*/
SELECT
    p.partner_id,
    p.partner_name,
    p.code,
    p.program,
    p.joined_on,
    p.left_on,
    g.window_days,
    g.hold_days,
    g.minimum_payout,
    g.currency
FROM seeds.partner_partners AS p
JOIN seeds.partner_programs AS g ON g.program = p.program AND g.currency = :currency
