{% set one = true %}
{% include "standing.sql" %},
history AS (
    SELECT position, track_id, title, stage, task_type, CASE WHEN said <> 'completed' THEN state END AS state, arrived_at,
           {{ shown_columns | wrapped(11) }}
    FROM standing
{% if separate %}
    UNION ALL
    SELECT task_type, id, NULL, NULL, task_type, NULL, arrived_at, {{ shown_columns | wrapped(11) }}
    FROM kept_elsewhere WHERE NOT EXISTS (SELECT FROM standing)
{% endif %})
