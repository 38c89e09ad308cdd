/*
kind: full
owner: partners@demo.example
description: >
  Per partner and month: what was referred and given back, and what that earned, by the day it happened. Statements
  differ: they hold what has become payable.
grain: [partner_id, month]
time_column: month
checks:
  - not_null: [partner_id, month, orders, net_amount, net_commission]
  - unique: [partner_id, month]
*/
SELECT
    partner_id,
    CAST(date_trunc('month', line_date) AS DATE) AS month,
    program,
    currency,
    count(*) FILTER (WHERE kind = 'commission') AS orders,
    CAST(coalesce(sum(base_amount) FILTER (WHERE kind = 'commission'), 0) AS DECIMAL(18, 2)) AS referred_amount,
    CAST(coalesce(-sum(base_amount) FILTER (WHERE kind = 'clawback'), 0) AS DECIMAL(18, 2)) AS returned_amount,
    CAST(sum(base_amount) AS DECIMAL(18, 2)) AS net_amount,
    CAST(coalesce(sum(amount) FILTER (WHERE kind = 'commission'), 0) AS DECIMAL(18, 2)) AS commission,
    CAST(coalesce(-sum(amount) FILTER (WHERE kind = 'clawback'), 0) AS DECIMAL(18, 2)) AS clawback,
    CAST(sum(amount) AS DECIMAL(18, 2)) AS net_commission
FROM marts.partner_commissions
GROUP BY partner_id, CAST(date_trunc('month', line_date) AS DATE), program, currency
