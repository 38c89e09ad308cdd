/*
kind: view
owner: product@demo.example
description: >
  Requests to a web server, cleaned. A page is what a person asked for and got (GET, 2xx or 304), not the images,
  styles, scripts, feeds and files for machines; whether a bot asked is for is_bot to say.
grain: [request_id]
*/
SELECT
    line_hash || '-' || CAST(line_nth AS VARCHAR) AS request_id,
    client_id,
    method,
    path,
    protocol,
    status,
    bytes,
    referrer_host,
    is_bot,
    coalesce(
        method = 'GET'
        AND (status BETWEEN 200 AND 299 OR status = 304)
        AND NOT regexp_matches(
            lower(path),
            '[.](avif|bmp|css|eot|gif|ico|jpeg|jpg|js|json|map|mp3|mp4|otf|png|svg|ttf|webm|webp|woff|woff2)$'
        )
        AND NOT regexp_matches(lower(path), '[.](atom|rdf|rss|txt|xml)$|/robots.txt$'),
        FALSE
    ) AS is_page,
    occurred_at,
    arrived_at
FROM raw.files__access_log
