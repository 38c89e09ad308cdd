/*
kind: full
owner: retail@demo.example
description: >
  Every line of a wholesaler's invoices with what it is. invoice_kind: sale, cancellation (C…) or adjustment (A…).
  line_kind: goods; what seeds.retail_codes says of codes that are no goods; without a price, free (given away)
  or stock (written off, negative). is_return marks goods that came back. Repeated lines are kept and marked:
  the invoice charged them.
grain: [line_id]
time_column: invoice_date
checks:
  - not_null: [line_id, invoice_no, stock_code, quantity, amount, invoice_date]
  - unique: [line_id]
  - expression: {sql: "customer_hash IS NOT NULL", name: customer_known}
    severity: warn
    max_rate: 0.25
  - expression: {sql: "quantity > 0 OR is_return OR line_kind <> 'goods'", name: goods_sold_are_positive}
*/
WITH lines AS (
    SELECT
        l.*,
        row_number() OVER (
            PARTITION BY
                l.invoice_no, l.stock_code, l.description, l.quantity, l.unit_price,
                l.customer_hash, l.country, l.invoiced_at
            ORDER BY l.line
        ) > 1 AS is_repeated,
        CASE substr(l.invoice_no, 1, 1)
            WHEN 'C' THEN 'cancellation' WHEN 'A' THEN 'adjustment' ELSE 'sale'
        END AS invoice_kind
    FROM staging.files__online_retail_lines AS l
), kinds AS (
    SELECT
        l.*,
        CASE
            WHEN l.unit_price = 0 AND l.quantity < 0 THEN 'stock'
            WHEN l.unit_price = 0 THEN 'free'
            ELSE coalesce(k.line_kind, 'goods')
        END AS line_kind,
        c.country AS country_code
    FROM lines AS l
    LEFT JOIN seeds.retail_codes AS k ON k.stock_code = l.stock_code
    LEFT JOIN seeds.retail_countries AS c ON c.country_name = l.country
)
SELECT
    invoice_no || '-' || CAST(line AS VARCHAR) AS line_id,
    invoice_no, line, invoice_kind, stock_code, description, line_kind,
    line_kind = 'goods' AND (invoice_kind = 'cancellation' OR quantity < 0) AS is_return,
    is_repeated, quantity, unit_price,
    CAST(amount AS DECIMAL(18, 3)) AS amount,
    customer_hash, country, country_code, invoiced_at,
    CAST(invoiced_at AT TIME ZONE :timezone AS DATE) AS invoice_date
FROM kinds
