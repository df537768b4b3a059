{% from "macros.sql" import and_ids with context %}
{% from "actions.sql" import takes, and_filters, attempts_after, limit_after with context %}
{% set relation = "orphaned" if kind == "delete" else "standing" %}
{% include relation ~ ".sql" %},
allowed (position, number, task_type, max_attempts, planned) AS (
{%- if steps %}VALUES{% else %}SELECT NULL, 0, NULL, 0, 0 WHERE false{% endif %}
{%- for s in steps +%}
    ({{ s.position }}, {{ loop.index }}, {{ s.task | text }}, {{ s.max_attempts }}, {{ planned[s.task] | value }}::bigint){% if not loop.last %},{% endif %}
{%- endfor %}),
taken AS (  -- the rows that {{ action | id }} takes
    SELECT position, {% if kind == "insert" %}k.track_id{% else %}k.id{% endif %} AS id, k.track_id, k.title, k.stage, k.task_type, k.arrived_at,
           k.status, k.error_message, k.attempts, k.max_attempts,
           {% if kind == "delete" %}k.status{% else %}'pending'{% endif %} AS status_after, {{ attempts_after("k", named) }} AS attempts_after,
           {{ limit_after("k", named, "a.max_attempts" | sql) }} AS max_attempts_after
    FROM {{ relation | id }} AS k JOIN allowed AS a USING (position)
    WHERE {{ takes("k", named, "k.state" | sql) }}{{ and_filters("k", named, "k.arrived_at" | sql) }}{{ and_ids() }}
{%- if limit %}

    ORDER BY k.arrived_at, k.track_id, position LIMIT {{ limit }}
{%- endif %})
