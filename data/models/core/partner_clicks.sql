/*
kind: full
owner: partners@demo.example
description: >
  Events that came through a partner's link, of persons we know: the code stands in the event's property ref, else
  in the page's query (?ref=CODE). Capital and small letters are alike. Only days on which the partner was one. An
  actor is known as a contact, or where its sender names it by an e-mail address that we have.
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
    WHERE page LIKE '%ref=%' OR json_extract_string(properties, '$.ref') IS NOT NULL
), actors AS (
    SELECT 'contact:' || record_id AS actor_id, person_id FROM core.person_links WHERE source = 'crm'
    UNION
    SELECT email_hash, person_id FROM core.person_links WHERE email_hash IS NOT NULL
)
SELECT
    r.click_id,
    t.partner_id,
    t.program,
    a.person_id,
    r.occurred_at AS clicked_at,
    r.event_date AS click_date,
    r.position
FROM referred AS r
JOIN core.partner_terms AS t
    ON lower(t.code) = r.code
    AND r.event_date >= t.joined_on
    AND (t.left_on IS NULL OR r.event_date <= t.left_on)
JOIN actors AS a ON a.actor_id = r.actor_id
