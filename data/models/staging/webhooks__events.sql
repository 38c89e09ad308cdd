/*
kind: view
owner: data@demo.example
description: Objects that Zapier and other senders delivered; their payloads stay encrypted.
grain: [event_id]
*/
SELECT
    id AS event_id,
    sender,
    source,
    topic,
    received_at,
    payload AS payload_encrypted
FROM raw.webhooks__events
