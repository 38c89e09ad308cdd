/*
kind: incremental_by_time
owner: product@demo.example
description: >
  One row per event of the product, the web site and the access log (people's page views only). The actor is the
  source's pseudonym; on the web site the event's own contact, else the contact its browser is known to belong to
  (core.usage_actors), else the browser. position orders all events of the company, those of one moment too.
  Sources that begin with ~ are the model's own: no collected event can have such a name. received_date is the
  day an event came in, where its sender's clock may be ahead.
grain: [source, event_id]
time_column: event_date
rebuild_on: [core.usage_actors]
checks:
  - not_null: [source, event_id, event, occurred_at, position]
  - unique: [source, event_id]
  - unique: [position]
*/
WITH events AS (
    SELECT
        source, event_id, account, actor_id, event,
        json_extract_string(properties, '$.page') AS page,
        json_extract_string(properties, '$.channel') AS channel,
        properties, occurred_at, received_at
    FROM staging.usage__events
    UNION ALL
    SELECT
        '~hubspot_web' AS source, w.event_id, NULL AS account,
        coalesce('contact:' || coalesce(w.contact_id, a.contact_id), 'visitor:' || w.visitor_id) AS actor_id,
        w.event, w.page, w.channel, NULL AS properties, w.occurred_at, w.occurred_at AS received_at
    FROM core.web_events AS w
    LEFT JOIN core.usage_actors AS a ON a.visitor_id = w.visitor_id
    WHERE w.occurred_at IS NOT NULL AND w.event IS NOT NULL
    UNION ALL
    SELECT
        '~access_log' AS source, request_id AS event_id, NULL AS account, client_id AS actor_id,
        'page_view' AS event, path AS page, referrer_host AS channel, NULL AS properties,
        occurred_at, occurred_at AS received_at
    FROM staging.files__access_log
    WHERE is_page AND NOT is_bot
), dated AS (
    SELECT
        e.*,
        CAST(e.occurred_at AT TIME ZONE :timezone AS DATE) AS event_date,
        CAST(e.received_at AT TIME ZONE :timezone AS DATE) AS received_date
    FROM events AS e
)
SELECT
    source, event_id, account, actor_id, event, page, channel, properties, occurred_at, event_date, received_date,
    CAST(event_date - DATE '2000-01-01' AS BIGINT) * 10000000000 + row_number() OVER (
        PARTITION BY event_date
        ORDER BY occurred_at, received_at, length(event_id), event_id, source
    ) AS position
FROM dated
