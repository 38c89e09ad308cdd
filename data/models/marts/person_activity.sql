/*
kind: view
owner: privacy@demo.example
description: >
  Deals, tickets, e-mails and web visits by person, through the CRM's contacts; an e-mail without a contact counts by
  its address. last_activity_at is the newest opening, click, ticket or web event: what the person did.
grain: [person_id]
*/
WITH activity AS (
    SELECT
        contact_id, CAST(NULL AS VARCHAR) AS email_hash, CAST(NULL AS TIMESTAMPTZ) AS happened_at,
        1 AS deals, CASE WHEN is_won OR is_lost THEN 0 ELSE 1 END AS open_deals,
        CASE WHEN is_won THEN coalesce(amount, 0) ELSE 0 END AS won_amount,
        0 AS tickets, 0 AS open_tickets, 0 AS emails, 0 AS emails_opened, 0 AS emails_clicked, 0 AS web_visits
    FROM core.deals
    UNION ALL
    SELECT
        contact_id, NULL AS email_hash, created_at AS happened_at, 0 AS deals, 0 AS open_deals, 0 AS won_amount,
        1 AS tickets, CASE WHEN is_open THEN 1 ELSE 0 END AS open_tickets,
        0 AS emails, 0 AS emails_opened, 0 AS emails_clicked, 0 AS web_visits
    FROM core.tickets
    UNION ALL
    SELECT
        contact_id, email_hash, greatest(opened_at, clicked_at) AS happened_at,
        0 AS deals, 0 AS open_deals, 0 AS won_amount, 0 AS tickets, 0 AS open_tickets, 1 AS emails,
        CASE WHEN is_opened THEN 1 ELSE 0 END AS emails_opened,
        CASE WHEN is_clicked THEN 1 ELSE 0 END AS emails_clicked, 0 AS web_visits
    FROM core.email_sends
    UNION ALL
    SELECT
        contact_id, NULL AS email_hash, occurred_at AS happened_at, 0 AS deals, 0 AS open_deals, 0 AS won_amount,
        0 AS tickets, 0 AS open_tickets, 0 AS emails, 0 AS emails_opened, 0 AS emails_clicked,
        CASE WHEN starts_visit THEN 1 ELSE 0 END AS web_visits
    FROM core.web_events
    WHERE contact_id IS NOT NULL
)
SELECT
    coalesce(l.person_id, a.email_hash) AS person_id,
    max(a.happened_at) AS last_activity_at,
    CAST(sum(a.deals) AS BIGINT) AS deals,
    CAST(sum(a.open_deals) AS BIGINT) AS open_deals,
    sum(a.won_amount) AS won_amount,
    CAST(sum(a.tickets) AS BIGINT) AS tickets,
    CAST(sum(a.open_tickets) AS BIGINT) AS open_tickets,
    CAST(sum(a.emails) AS BIGINT) AS emails,
    CAST(sum(a.emails_opened) AS BIGINT) AS emails_opened,
    CAST(sum(a.emails_clicked) AS BIGINT) AS emails_clicked,
    CAST(sum(a.web_visits) AS BIGINT) AS web_visits
FROM activity AS a
LEFT JOIN core.person_links AS l ON l.source = 'crm' AND l.record_id = a.contact_id
WHERE coalesce(l.person_id, a.email_hash) IS NOT NULL
GROUP BY coalesce(l.person_id, a.email_hash)
