/*
kind: full
owner: privacy@demo.example
description: >
  One row per person (core.person_links) with what all systems know: orders and revenue in the company's currency,
  value segment, deals, tickets, e-mails, web visits, when last seen, and what each system says about mail. segment
  and country are each those of the newest order that has one; orders and refunds without_rate are missing in revenue.
  accepts_marketing: some system says yes and Salesforce does not say no; the consent ledger has the last word.
grain: [person_id]
time_column: first_seen_date
checks:
  - not_null: [person_id, orders, revenue]
  - unique: [person_id]
*/
WITH links AS (
    SELECT
        l.*,
        CASE WHEN source = 'shop' THEN record_id END AS shop_id,
        CASE WHEN source = 'crm' THEN record_id END AS crm_id,
        CASE WHEN source = 'salesforce' THEN record_id END AS salesforce_id,
        CASE WHEN source = 'stripe' THEN record_id END AS stripe_id
    FROM core.person_links AS l
), people AS (
    SELECT
        l.person_id,
        min(l.email_hash) AS email_hash,
        min(l.created_at) AS first_seen_at,
        bool_or(l.source IN ('shop', 'guest')) AS is_in_shop,
        bool_or(l.source IN ('crm', 'salesforce')) AS is_in_crm,
        bool_or(l.source = 'stripe') AS is_in_stripe,
        count(*) AS records,
        bool_or(c.accepts_marketing) AS shop_marketing,
        bool_or(k.newsletter) AS crm_newsletter,
        bool_or(s.mailing_opt_out) AS salesforce_opt_out,
        coalesce(bool_or(p.is_delinquent), FALSE) AS is_delinquent
    FROM links AS l
    LEFT JOIN core.customers AS c ON c.customer_id = l.shop_id
    LEFT JOIN core.contacts AS k ON k.contact_id = l.crm_id
    LEFT JOIN staging.salesforce__contacts AS s ON s.contact_id = l.salesforce_id
    LEFT JOIN staging.stripe__customers AS p ON p.customer_id = l.stripe_id
    GROUP BY l.person_id
)
SELECT
    p.person_id, p.email_hash, v.country, p.is_in_shop, p.is_in_crm, p.is_in_stripe, p.records,
    CAST(p.first_seen_at AT TIME ZONE :timezone AS DATE) AS first_seen_date,
    CAST(greatest(p.first_seen_at, v.last_order_at, a.last_activity_at) AT TIME ZONE :timezone AS DATE) AS last_seen_date,
    coalesce(v.orders, 0) AS orders, coalesce(v.without_rate, 0) AS without_rate,
    CAST(coalesce(v.revenue, 0) AS DECIMAL(18, 2)) AS revenue,
    v.first_order_date, v.last_order_date, v.segment,
    coalesce(a.deals, 0) AS deals, coalesce(a.open_deals, 0) AS open_deals,
    CAST(coalesce(a.won_amount, 0) AS DECIMAL(18, 2)) AS won_amount,
    coalesce(a.tickets, 0) AS tickets, coalesce(a.open_tickets, 0) AS open_tickets,
    coalesce(a.emails, 0) AS emails, coalesce(a.emails_opened, 0) AS emails_opened,
    coalesce(a.emails_clicked, 0) AS emails_clicked, coalesce(a.web_visits, 0) AS web_visits,
    p.is_delinquent, p.shop_marketing, p.crm_newsletter, p.salesforce_opt_out,
    coalesce(p.shop_marketing OR p.crm_newsletter, FALSE) AND NOT coalesce(p.salesforce_opt_out, FALSE) AS accepts_marketing
FROM people AS p
LEFT JOIN marts.person_orders AS v ON v.person_id = p.person_id
LEFT JOIN marts.person_activity AS a ON a.person_id = p.person_id
