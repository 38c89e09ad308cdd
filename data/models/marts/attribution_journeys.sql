/*
kind: full
owner: marketing@demo.example
description: >
  Paths of channels and how they ended: in a conversion, or nowhere. A person's touches that led to no conversion of
  the kind are one journey that is lost. A > in a channel's name becomes /: it parts the channels of a path. What the
  Markov attribution learns from.
grain: [kind, path]
checks:
  - not_null: [kind, path, conversions, lost]
  - unique: [kind, path]
*/
WITH kinds AS (
    SELECT 'order' AS kind UNION ALL SELECT 'deal'
), converted AS (
    SELECT kind, conversion_id, string_agg(replace(channel, '>', '/'), ' > ' ORDER BY position) AS path
    FROM marts.attribution_touchpoints
    WHERE touch_id IS NOT NULL
    GROUP BY kind, conversion_id
), used AS (
    SELECT DISTINCT kind, touch_id
    FROM marts.attribution_touchpoints
    WHERE touch_id IS NOT NULL
), lost AS (
    SELECT
        k.kind, t.person_id,
        string_agg(replace(t.channel, '>', '/'), ' > ' ORDER BY t.touched_at, t.touch_id) AS path
    FROM core.attribution_touches AS t
    CROSS JOIN kinds AS k
    LEFT JOIN used AS u ON u.kind = k.kind AND u.touch_id = t.touch_id
    WHERE u.touch_id IS NULL
    GROUP BY k.kind, t.person_id
), journeys AS (
    SELECT kind, path, 1 AS conversions, 0 AS lost FROM converted
    UNION ALL
    SELECT kind, path, 0 AS conversions, 1 AS lost FROM lost
)
SELECT
    kind,
    path,
    CAST(sum(conversions) AS BIGINT) AS conversions,
    CAST(sum(lost) AS BIGINT) AS lost
FROM journeys
GROUP BY kind, path
