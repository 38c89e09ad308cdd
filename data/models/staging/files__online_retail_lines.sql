/*
kind: view
owner: retail@demo.example
description: Lines of a wholesaler's invoices, cleaned; a cancellation has a negative quantity.
grain: [invoice_no, line]
*/
SELECT
    upper(trim(invoice_no)) AS invoice_no,
    line,
    upper(trim(stock_code)) AS stock_code,
    nullif(trim(description), '') AS description,
    quantity,
    unit_price,
    quantity * unit_price AS amount,
    customer_id AS customer_hash,
    nullif(trim(country), '') AS country,
    substr(upper(trim(invoice_no)), 1, 1) = 'C' AS is_cancellation,
    invoiced_at,
    arrived_at
FROM raw.files__online_retail_lines
