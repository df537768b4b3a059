{% from "macros.sql" import state with context %}
{#- The file's SQL comes first: what follows has names that its tables may have, too. -#}
WITH here_now AS (  -- all but the completed ones
{% for relation in jobs.relations %}
    SELECT {{ jobs.columns | wrapped(11) }},
           {{ stuck_after | value }} AS stuck_after
    FROM {{ relation }}
    WHERE {% if one is defined %}{{ jobs.roles.id }} = :id{% else %}{{ jobs.open }}{% endif %}
{% if not loop.last %}

    UNION ALL
{% endif %}
{% endfor %}),
{% if one is defined and separate %}
kept_elsewhere AS (  -- over
{% for relation in past.relations %}
    SELECT {{ past.columns | wrapped(11) }}
    FROM {{ relation }} WHERE {{ past.roles.id }} = :id
{%- if not loop.last %} UNION ALL{% endif %}

{% endfor %}),
{% endif %}
{% if history is defined %}
{% include "ended.sql" %},
{% endif %}
standing AS (
    SELECT task_type AS position, NULL::text AS stage, task_type, id AS track_id, NULL::text AS title,
           {{ state("k", "k") }} AS state,
           arrived_at, id, said, status, attempts, max_attempts, created_at, next_retry_at, last_attempt_at, alive_at,
           error_message, ended_at
    FROM here_now AS k{% if steps %} WHERE task_type IN ({{ steps | map(attribute="position") | wrapped(28, 45) }}){% endif %}){% if steps %},
step (position, stage, task_type) AS (VALUES
{%- for s in steps +%}
    ({{ s.position }}, NULL::text, {{ s.position }}){% if not loop.last %},{% endif %}
{%- endfor %}){% elif history is not defined %},
step AS (SELECT DISTINCT position, stage, task_type FROM standing){% endif %}
