/*
kind: view
owner: crm@demo.example
description: Companies of HubSpot deals, each pair once.
grain: [deal_id, company_id]
*/
SELECT DISTINCT
    deal_id,
    company_id
FROM raw.hubspot__deal_companies
