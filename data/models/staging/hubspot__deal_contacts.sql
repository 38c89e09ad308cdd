/*
kind: view
owner: crm@demo.example
description: Contacts of HubSpot deals, each pair once.
grain: [deal_id, contact_id]
*/
SELECT DISTINCT
    deal_id,
    contact_id
FROM raw.hubspot__deal_contacts
