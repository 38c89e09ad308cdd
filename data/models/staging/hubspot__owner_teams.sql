/*
kind: view
owner: crm@demo.example
description: Teams of HubSpot owners.
grain: [owner_id, team_id]
*/
SELECT
    owner_id,
    team_id,
    nullif(trim(name), '') AS team_name,
    is_primary
FROM raw.hubspot__owner_teams
