/*
kind: full
owner: retail@demo.example
description: >
  One row per invoice of a wholesaler, cancellations and adjustments included. The amounts by kind of line add up
  to total_amount; returned and discounted amounts are positive. refunded_amount is what a cancellation gave back.
grain: [invoice_no]
time_column: invoice_date
checks:
  - not_null: [invoice_no, invoice_kind, invoice_date, total_amount]
  - unique: [invoice_no]
  - expression:
      sql: >
        goods_amount - returned_amount - discount_amount + postage_amount + voucher_amount + manual_amount
        + fee_amount + bad_debt_amount = total_amount
      name: kinds_add_up
*/
WITH sums AS (
    SELECT
        invoice_no,
        min(invoice_kind) AS invoice_kind,
        min(customer_hash) AS customer_hash,
        min(country) AS country,
        min(country_code) AS country_code,
        min(invoiced_at) AS invoiced_at,
        count(*) AS lines,
        sum(quantity) FILTER (WHERE line_kind = 'goods' AND NOT is_return) AS items,
        -sum(quantity) FILTER (WHERE is_return) AS returned_items,
        sum(amount) FILTER (WHERE line_kind = 'goods' AND NOT is_return) AS goods_amount,
        -sum(amount) FILTER (WHERE is_return) AS returned_amount,
        -sum(amount) FILTER (WHERE line_kind = 'discount') AS discount_amount,
        sum(amount) FILTER (WHERE line_kind = 'postage') AS postage_amount,
        sum(amount) FILTER (WHERE line_kind = 'voucher') AS voucher_amount,
        sum(amount) FILTER (WHERE line_kind IN ('manual', 'sample')) AS manual_amount,
        sum(amount) FILTER (WHERE line_kind = 'fee') AS fee_amount,
        sum(amount) FILTER (WHERE line_kind = 'bad_debt') AS bad_debt_amount,
        -sum(amount) FILTER (
            WHERE invoice_kind = 'cancellation' AND line_kind IN ('goods', 'discount', 'postage', 'voucher')
        ) AS refunded_amount,
        sum(amount) AS total_amount
    FROM core.retail_lines
    GROUP BY invoice_no
)
SELECT
    invoice_no, invoice_kind, customer_hash, country, country_code, invoiced_at,
    CAST(invoiced_at AT TIME ZONE :timezone AS DATE) AS invoice_date,
    lines,
    CAST(coalesce(items, 0) AS BIGINT) AS items,
    CAST(coalesce(returned_items, 0) AS BIGINT) AS returned_items,
    CAST(coalesce(goods_amount, 0) AS DECIMAL(18, 3)) AS goods_amount,
    CAST(coalesce(returned_amount, 0) AS DECIMAL(18, 3)) AS returned_amount,
    CAST(coalesce(discount_amount, 0) AS DECIMAL(18, 3)) AS discount_amount,
    CAST(coalesce(postage_amount, 0) AS DECIMAL(18, 3)) AS postage_amount,
    CAST(coalesce(voucher_amount, 0) AS DECIMAL(18, 3)) AS voucher_amount,
    CAST(coalesce(manual_amount, 0) AS DECIMAL(18, 3)) AS manual_amount,
    CAST(coalesce(fee_amount, 0) AS DECIMAL(18, 3)) AS fee_amount,
    CAST(coalesce(bad_debt_amount, 0) AS DECIMAL(18, 3)) AS bad_debt_amount,
    CAST(coalesce(refunded_amount, 0) AS DECIMAL(18, 3)) AS refunded_amount,
    CAST(total_amount AS DECIMAL(18, 3)) AS total_amount
FROM sums
