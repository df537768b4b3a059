{% from "macros.sql" import and_ids with context %}
{% from "actions.sql" import takes, and_filters with context %}
{% set relation = "orphaned" if kind == "delete" else "standing" %}
{% include relation ~ ".sql" %},
here AS (  -- what the chosen tracks have at these steps, and whether {{ action | id }} takes it
    SELECT k.track_id, k.task_type, {% if kind == "delete" %}k.status{% else %}k.state{% endif %} AS state,
           ({{ takes("k", named, "k.state" | sql) }}{{ and_filters("k", named, "k.arrived_at" | sql) }}) IS TRUE AS taken
    FROM {{ relation | id }} AS k WHERE true{{ and_ids() }})
SELECT asked.id AS {{ id_column }}, CASE
           WHEN t.{{ tracks.id }} IS NULL THEN 'there is no such track'
           WHEN count(k.task_type) > 0 THEN string_agg(format('%s is %s', k.task_type, k.state), ', ')
{% if kind == "delete" %}
           ELSE 'it has no orphan of these tasks' END AS reason
{% else %}
           ELSE format('it is at %s, where none of these tasks is due', coalesce(t.{{ tracks.stage }}::text, 'no stage')) END AS reason
{% endif %}
FROM unnest(CAST(:ids AS text[])) WITH ORDINALITY AS asked (id, n)
LEFT JOIN {{ tracks.rows }} AS t ON t.{{ tracks.id }}::text = asked.id
LEFT JOIN here AS k ON k.track_id::text = asked.id
GROUP BY asked.id, asked.n, t.{{ tracks.id }}, t.{{ tracks.stage }} HAVING bool_or(k.taken) IS NOT TRUE
ORDER BY asked.n
