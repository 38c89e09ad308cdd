/*
kind: full
owner: crm@demo.example
description: Reviews by month and product type; score_sum over scored_reviews is the mean over any grouping.
grain: [review_month, product_type]
time_column: review_month
checks:
  - not_null: [review_month, product_type, reviews]
  - unique: [review_month, product_type]
*/
SELECT
    CAST(date_trunc('month', review_date) AS DATE) AS review_month,
    coalesce(product_type, '(none)') AS product_type,
    count(*) AS reviews,
    count(score) AS scored_reviews,
    CAST(coalesce(sum(score), 0) AS BIGINT) AS score_sum,
    count(*) FILTER (WHERE score <= 2) AS low_scores,
    count(*) FILTER (WHERE message IS NOT NULL) AS with_message,
    CAST(sum(score) AS DOUBLE) / nullif(count(score), 0) AS average_score
FROM core.reviews
WHERE review_date IS NOT NULL
GROUP BY CAST(date_trunc('month', review_date) AS DATE), coalesce(product_type, '(none)')
