{% from "macros.sql" import and_chosen with context %}
{% include "standing.sql" %}

SELECT track_id AS {{ id_column }}, title, stage, task_type, arrived_at
FROM standing WHERE state = 'missing'{{ and_chosen() }}
ORDER BY arrived_at, track_id, task_type{% if limit %} LIMIT :limit{% endif %}
