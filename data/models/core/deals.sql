/*
kind: full
owner: crm@demo.example
description: >
  One row per deal that is not archived, with one contact and one company: of several, the first by id that
  still exists. closed_date is set only for won and lost deals; an open deal's is a plan.
grain: [deal_id]
time_column: created_date
checks:
  - not_null: [deal_id, stage]
  - unique: [deal_id]
  - relationship: {column: contact_id, to: core.contacts.contact_id}
  - relationship: {column: company_id, to: core.companies.company_id}
  - expression: {sql: "closed_date IS NOT NULL OR NOT (is_won OR is_lost)", name: closed_deal_has_date}
    severity: warn
*/
WITH contact_of AS (
    SELECT l.deal_id, c.contact_id, c.lead_source
    FROM staging.hubspot__deal_contacts AS l
    JOIN core.contacts AS c ON c.contact_id = l.contact_id
    QUALIFY row_number() OVER (PARTITION BY l.deal_id ORDER BY length(c.contact_id), c.contact_id) = 1
), company_of AS (
    SELECT l.deal_id, c.company_id
    FROM staging.hubspot__deal_companies AS l
    JOIN core.companies AS c ON c.company_id = l.company_id
    QUALIFY row_number() OVER (PARTITION BY l.deal_id ORDER BY length(c.company_id), c.company_id) = 1
), deals AS (
    SELECT
        d.*,
        coalesce(stage IN ('closedwon', 'won'), FALSE) AS is_won,
        coalesce(stage IN ('closedlost', 'lost'), FALSE) AS is_lost,
        CAST(created_at AT TIME ZONE :timezone AS DATE) AS created_date,
        CAST(closed_at AT TIME ZONE :timezone AS DATE) AS closing_date
    FROM staging.hubspot__deals AS d
    WHERE NOT is_archived
)
SELECT
    d.deal_id, d.external_id, d.deal_name, p.contact_id, o.company_id, d.external_company_id,
    d.pipeline, d.stage, d.is_won, d.is_lost, d.amount, d.segment, d.lead_type, p.lead_source,
    d.created_at, d.created_date,
    CASE WHEN d.is_won OR d.is_lost THEN d.closed_at END AS closed_at,
    CASE WHEN d.is_won OR d.is_lost THEN d.closing_date END AS closed_date,
    CASE WHEN d.is_won OR d.is_lost THEN d.closing_date - d.created_date END AS days_to_close,
    d.updated_at
FROM deals AS d
LEFT JOIN contact_of AS p ON p.deal_id = d.deal_id
LEFT JOIN company_of AS o ON o.deal_id = d.deal_id
