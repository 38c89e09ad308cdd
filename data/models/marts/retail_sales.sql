/*
kind: incremental_by_time
owner: retail@demo.example
description: >
  The wholesaler's sales by day and country as it writes it, in pounds. net_sales is goods sold less goods returned
  and discounts, whoever bought them. Postage, vouchers, corrections (with samples), fees and bad debt stand beside
  it; all together are total_amount, the sum of every line. Customers are those known who bought goods.
grain: [sale_date, country]
time_column: sale_date
checks:
  - not_null: [sale_date, country, net_sales, total_amount]
  - unique: [sale_date, country]
  - expression:
      sql: >
        net_sales + postage + vouchers + corrections + fees + bad_debt = total_amount
        AND net_sales = gross_sales - returns - discounts
      name: parts_add_up
*/
SELECT
    invoice_date AS sale_date,
    coalesce(country, '(none)') AS country,
    count(*) FILTER (WHERE invoice_kind = 'sale' AND goods_amount > 0) AS invoices,
    count(*) FILTER (WHERE invoice_kind = 'cancellation') AS cancellations,
    count(DISTINCT customer_hash) FILTER (WHERE goods_amount > 0) AS customers,
    CAST(sum(items) AS BIGINT) AS items,
    CAST(sum(returned_items) AS BIGINT) AS returned_items,
    CAST(sum(goods_amount) AS DECIMAL(18, 3)) AS gross_sales,
    CAST(sum(returned_amount) AS DECIMAL(18, 3)) AS returns,
    CAST(sum(discount_amount) AS DECIMAL(18, 3)) AS discounts,
    CAST(sum(goods_amount - returned_amount - discount_amount) AS DECIMAL(18, 3)) AS net_sales,
    CAST(coalesce(sum(goods_amount) FILTER (WHERE customer_hash IS NULL), 0) AS DECIMAL(18, 3)) AS unknown_customer_sales,
    CAST(sum(postage_amount) AS DECIMAL(18, 3)) AS postage,
    CAST(sum(voucher_amount) AS DECIMAL(18, 3)) AS vouchers,
    CAST(sum(manual_amount) AS DECIMAL(18, 3)) AS corrections,
    CAST(sum(fee_amount) AS DECIMAL(18, 3)) AS fees,
    CAST(sum(bad_debt_amount) AS DECIMAL(18, 3)) AS bad_debt,
    CAST(sum(total_amount) AS DECIMAL(18, 3)) AS total_amount
FROM core.retail_invoices
GROUP BY invoice_date, coalesce(country, '(none)')
