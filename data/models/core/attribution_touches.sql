/*
kind: full
owner: marketing@demo.example
description: >
  Contacts of persons with marketing: the start of a visit to the web site by its channel, a click in an e-mail, and
  where a lead came from. Visits of browsers that belong to nobody we know are not among them.
grain: [touch_id]
checks:
  - not_null: [touch_id, person_id, channel, touched_at]
  - unique: [touch_id]
*/
WITH touches AS (
    SELECT
        'visit:' || w.event_id AS touch_id,
        coalesce(w.contact_id, a.contact_id) AS contact_id,
        w.channel,
        w.occurred_at AS touched_at
    FROM core.web_events AS w
    LEFT JOIN core.usage_actors AS a ON a.visitor_id = w.visitor_id
    WHERE w.starts_visit
    UNION ALL
    SELECT 'mail:' || send_id, contact_id, 'email', clicked_at
    FROM core.email_sends
    UNION ALL
    SELECT 'lead:' || contact_id, contact_id, lower(lead_source), created_at
    FROM core.contacts
)
SELECT
    t.touch_id,
    l.person_id,
    coalesce(nullif(trim(t.channel), ''), 'unknown') AS channel,
    t.touched_at
FROM touches AS t
JOIN core.person_links AS l ON l.source = 'crm' AND l.record_id = t.contact_id
WHERE t.touched_at IS NOT NULL AND (t.channel IS NOT NULL OR t.touch_id LIKE 'visit:%')
