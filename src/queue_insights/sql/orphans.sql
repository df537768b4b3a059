{% from "macros.sql" import where_chosen with context %}
{% include "orphaned.sql" %}

SELECT track_id AS {{ id_column }}, title, stage, task_type, arrived_at,
       {{ shown_columns | wrapped(7) }}
FROM orphaned{{ where_chosen() }}
ORDER BY arrived_at, track_id, task_type{% if limit %} LIMIT :limit{% endif %}
