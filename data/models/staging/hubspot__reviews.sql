/*
kind: view
owner: crm@demo.example
description: Reviews kept in HubSpot, renamed and cleaned; a score outside 1 to 5 becomes null; archived ones included.
grain: [review_id]
*/
SELECT
    id AS review_id,
    nullif(trim(external_id), '') AS external_id,
    nullif(ltrim(trim(order_ref), '#'), '') AS order_number,
    CASE WHEN score BETWEEN 1 AND 5 THEN score END AS score,
    nullif(trim(title), '') AS title,
    nullif(trim(message), '') AS message,
    created_at,
    updated_at,
    archived AS is_archived
FROM raw.hubspot__reviews
