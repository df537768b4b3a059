{% set one = true %}
{% include "standing.sql" %},
history AS (
    SELECT position, track_id, title, stage, task_type, CASE WHEN said <> 'completed' THEN state END AS state, arrived_at,
           {{ shown_columns | wrapped(11) }}
    FROM standing
{% if separate %}
{% for relation in past.relations %}
    UNION ALL  -- over, and kept elsewhere
    SELECT k.task_type, k.id, NULL, NULL, k.task_type, NULL, k.arrived_at, {{ shown_columns | wrapped(11) }}
    FROM (SELECT {{ past.columns | wrapped(17) }}
          FROM {{ relation }} WHERE {{ past.roles.id }} = :id) AS k
    WHERE NOT EXISTS (SELECT FROM standing)
{% endfor %}
{% endif %})
