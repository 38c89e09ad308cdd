/*
kind: view
owner: crm@demo.example
description: >
  Deals of HubSpot and opportunities of Salesforce that are not archived or deleted, in one shape. A deal of HubSpot
  has one contact and one company: of several, the first by id that still exists. Salesforce knows days only;
  a deal begins there when sales began to work on it.
grain: [deal_id]
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
)
SELECT
    d.deal_id, 'hubspot' AS source, d.external_id, d.deal_name, p.contact_id, o.company_id, d.external_company_id,
    CAST(NULL AS VARCHAR) AS owner_id, d.pipeline, d.stage,
    coalesce(d.stage IN ('closedwon', 'won'), FALSE) AS is_won,
    coalesce(d.stage IN ('closedlost', 'lost'), FALSE) AS is_lost,
    d.amount, d.segment, d.lead_type, p.lead_source, d.created_at,
    CAST(d.created_at AT TIME ZONE :timezone AS DATE) AS created_date,
    d.closed_at,
    CAST(d.closed_at AT TIME ZONE :timezone AS DATE) AS closing_date,
    d.updated_at
FROM staging.hubspot__deals AS d
LEFT JOIN contact_of AS p ON p.deal_id = d.deal_id
LEFT JOIN company_of AS o ON o.deal_id = d.deal_id
WHERE NOT d.is_archived
UNION ALL
SELECT
    s.opportunity_id, 'salesforce' AS source, s.external_id, s.opportunity_name,
    CAST(NULL AS VARCHAR) AS contact_id, a.company_id, CAST(NULL AS VARCHAR) AS external_company_id,
    s.owner_user_id, CAST(NULL AS VARCHAR) AS pipeline, s.stage,
    s.is_won, s.is_closed AND NOT s.is_won AS is_lost, s.amount,
    CAST(NULL AS VARCHAR) AS segment, s.opportunity_type, s.lead_source, s.created_at,
    coalesce(s.engaged_on, CAST(s.created_at AT TIME ZONE :timezone AS DATE)) AS created_date,
    CAST(NULL AS TIMESTAMPTZ) AS closed_at, s.closed_on, s.updated_at
FROM staging.salesforce__opportunities AS s
LEFT JOIN core.companies AS a ON a.company_id = s.account_id
WHERE NOT s.is_deleted
