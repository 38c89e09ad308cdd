/*
kind: view
owner: crm@demo.example
description: Scores that buyers gave an order in the survey tool.
grain: [rating_id]
*/
SELECT
    id AS rating_id,
    nullif(trim(order_ref), '') AS order_ref,
    score,
    created_at AS rated_at,
    updated_at
FROM raw.feedback__ratings
