/*
kind: full
owner: crm@demo.example
description: >
  One row per deal of the CRM (HubSpot's deals, Salesforce's opportunities) that is not archived, with one contact
  and one company. closed_date is set only for won and lost deals; an open deal's is a plan.
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
SELECT
    deal_id, source, external_id, deal_name, contact_id, company_id, external_company_id, owner_id,
    pipeline, stage, is_won, is_lost, amount, segment, lead_type, lead_source,
    created_at, created_date,
    CASE WHEN is_won OR is_lost THEN closed_at END AS closed_at,
    CASE WHEN is_won OR is_lost THEN closing_date END AS closed_date,
    CASE WHEN is_won OR is_lost THEN closing_date - created_date END AS days_to_close,
    updated_at
FROM core.crm_deals
