/*
kind: view
owner: crm@demo.example
description: Salesforce products, renamed and cleaned; those in the recycle bin included.
grain: [product_id]
*/
SELECT
    id AS product_id,
    nullif(trim(external_id), '') AS external_id,
    nullif(trim(name), '') AS product_name,
    nullif(trim(code), '') AS product_code,
    lower(nullif(trim(family), '')) AS family,
    CASE WHEN list_price >= 0 THEN list_price END AS list_price,
    is_active,
    created_at,
    updated_at,
    is_deleted
FROM raw.salesforce__products
