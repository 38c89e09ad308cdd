/*
kind: full
owner: product@demo.example
description: >
  Which contact a browser (visitor) belongs to: the contact of its latest event that names one. An anonymous
  visitor who later is known is that contact from then on and backwards; a contact may have several browsers.
  Holds no times, so that it changes, and the events with it, only when somebody becomes known.
grain: [visitor_id]
checks:
  - not_null: [visitor_id, contact_id]
  - unique: [visitor_id]
*/
SELECT
    visitor_id,
    contact_id
FROM core.web_events
WHERE visitor_id IS NOT NULL AND contact_id IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY visitor_id ORDER BY occurred_at DESC, length(event_id) DESC, event_id DESC
) = 1
