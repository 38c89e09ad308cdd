/*
kind: view
owner: retail@demo.example
description: >
  A wholesaler's invoices as orders, in the shape of core.orders: sales with goods at a price. A cancellation does
  not name the invoice it cancels, so that nothing is deducted here; core.refunds holds it.
grain: [order_id]
*/
SELECT
    i.invoice_no AS order_id,
    i.invoice_no AS order_number,
    i.customer_hash AS customer_id,
    CAST(NULL AS VARCHAR) AS email_hash,
    i.country_code AS country,
    'invoice' AS channel,
    CAST(NULL AS VARCHAR) AS financial_status,
    CAST(NULL AS VARCHAR) AS fulfillment_status,
    'GBP' AS currency,
    i.items,
    CAST(i.goods_amount AS DECIMAL(18, 2)) AS gross_amount,
    CAST(i.discount_amount AS DECIMAL(18, 2)) AS discount_amount,
    CAST(i.goods_amount - i.discount_amount AS DECIMAL(18, 2)) AS subtotal_amount,
    CAST(i.postage_amount AS DECIMAL(18, 2)) AS shipping_amount,
    CAST(i.total_amount AS DECIMAL(18, 2)) AS total_amount,
    CAST(0 AS DECIMAL(18, 2)) AS refunded_amount,
    i.invoiced_at AS ordered_at,
    CAST(NULL AS TIMESTAMPTZ) AS cancelled_at,
    i.invoiced_at AS updated_at
FROM core.retail_invoices AS i
WHERE i.invoice_kind = 'sale' AND i.goods_amount > 0
