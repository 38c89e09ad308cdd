{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='event_date', on_schema_change='fail') }}
select
    cast(occurred_at as date) as event_date,
    tenant_id,
    event_name,
    count(*) as events,
    count(distinct user_id) as users,
    approx_count_distinct(user_id) as users_approx,
    cast(sum(amount) as decimal(18, 2)) as amount
from {{ source('raw', 'bench_events') }}
{% if is_incremental() %}
where occurred_at >= timestamp '{{ var("since") }}' and occurred_at < timestamp '{{ var("until") }}'
{% endif %}
group by 1, 2, 3
