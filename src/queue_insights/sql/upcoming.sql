{% from "macros.sql" import and_chosen with context %}
{% include "standing.sql" %}

SELECT track_id AS {{ id_column }}, title, stage, task_type, state, arrived_at,
       {{ shown_columns | wrapped(7) }}
FROM standing WHERE state IN ('missing', 'pending', 'retryable'){{ and_chosen() }}
ORDER BY arrived_at, track_id, task_type{% if limit %} LIMIT :limit{% endif %}
