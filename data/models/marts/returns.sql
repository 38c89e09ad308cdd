/*
kind: full
owner: shop@demo.example
description: >
  What was given back by day of the return, product and reason, in the company's currency. days_to_return_sum over
  dated_returns is the mean time until a return.
grain: [return_date, product_id, reason]
time_column: return_date
checks:
  - not_null: [return_date, product_id, reason, returns]
  - unique: [return_date, product_id, reason]
*/
SELECT
    return_date,
    coalesce(product_id, '(none)') AS product_id,
    coalesce(reason, '(none)') AS reason,
    min(title) AS title,
    min(product_type) AS product_type,
    count(*) AS returns,
    CAST(coalesce(sum(quantity), 0) AS BIGINT) AS items,
    CAST(coalesce(sum(quantity) FILTER (WHERE is_restocked), 0) AS BIGINT) AS restocked_items,
    CAST(coalesce(sum(amount_home), 0) AS DECIMAL(18, 2)) AS amount,
    count(days_to_return) AS dated_returns,
    CAST(coalesce(sum(days_to_return), 0) AS BIGINT) AS days_to_return_sum
FROM core.returns
GROUP BY return_date, coalesce(product_id, '(none)'), coalesce(reason, '(none)')
