/*
kind: view
owner: crm@demo.example
description: Contacts of HubSpot tickets, each pair once.
grain: [ticket_id, contact_id]
*/
SELECT DISTINCT
    ticket_id,
    contact_id
FROM raw.hubspot__ticket_contacts
