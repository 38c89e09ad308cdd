/*
kind: full
owner: privacy@demo.example
description: >
  Which person a record of a system is about, one row per record. A record belongs to the person of its hashed
  e-mail address; without one, a Stripe customer to that of the shop's customer it names, and any other record is a
  person of its own (system:id). A guest is the address of an order whose customer is none or not loaded. Records that
  share an address are one person; links go no further than that.
grain: [source, record_id]
checks:
  - not_null: [source, record_id, person_id]
  - unique: [source, record_id]
*/
WITH records AS (
    SELECT
        'shop' AS source, customer_id AS record_id, email_hash, 'shop:' || customer_id AS own_id, created_at
    FROM core.customers
    UNION ALL
    SELECT 'guest', o.email_hash, o.email_hash, o.email_hash, min(o.ordered_at)
    FROM core.orders AS o
    LEFT JOIN core.customers AS c ON c.customer_id = o.customer_id
    WHERE c.customer_id IS NULL AND o.email_hash IS NOT NULL
    GROUP BY o.email_hash
    UNION ALL
    SELECT 'crm', contact_id, email_hash, 'crm:' || contact_id, created_at FROM core.contacts
    UNION ALL
    SELECT 'salesforce', contact_id, email_hash, 'salesforce:' || contact_id, created_at
    FROM staging.salesforce__contacts
    WHERE NOT is_deleted
    UNION ALL
    SELECT
        'stripe', p.customer_id, coalesce(p.email_hash, c.email_hash),
        coalesce('shop:' || c.customer_id, 'stripe:' || p.customer_id),
        p.created_at
    FROM staging.stripe__customers AS p
    LEFT JOIN core.customers AS c ON c.customer_id = 'gid://shopify/Customer/' || p.shop_customer_ref
    WHERE p.is_deleted IS NOT TRUE
)
SELECT
    source,
    record_id,
    coalesce(email_hash, own_id) AS person_id,
    email_hash,
    created_at
FROM records
