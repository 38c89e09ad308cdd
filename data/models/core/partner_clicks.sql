/*
kind: full
owner: partners@demo.example
description: >
  Events that came through a partner's link, of persons we know: the code stands in the event's property ref, else
  in the page's query (?ref=CODE). Capital and small letters are alike. Only days on which the partner was one.
grain: [click_id]
time_column: click_date
checks:
  - not_null: [click_id, partner_id, person_id, clicked_at]
  - unique: [click_id]
*/
WITH referred AS (
    SELECT
        source || ':' || event_id AS click_id,
        actor_id,
        occurred_at,
        event_date,
        position,
        lower(trim(coalesce(
            nullif(json_extract_string(properties, '$.ref'), ''),
            split_part(split_part('&' || split_part(split_part(page, '#', 1), '?', 2), '&ref=', 2), '&', 1)
        ))) AS code
    FROM core.usage_events
    WHERE actor_id LIKE 'contact:%' AND (properties IS NOT NULL OR page LIKE '%ref=%')
)
SELECT
    r.click_id,
    t.partner_id,
    t.program,
    l.person_id,
    r.occurred_at AS clicked_at,
    r.event_date AS click_date,
    r.position
FROM referred AS r
JOIN core.partner_terms AS t
    ON lower(t.code) = r.code
    AND r.event_date >= t.joined_on
    AND (t.left_on IS NULL OR r.event_date <= t.left_on)
JOIN core.person_links AS l ON l.source = 'crm' AND 'contact:' || l.record_id = r.actor_id
