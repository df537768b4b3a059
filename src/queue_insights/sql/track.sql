{% include "history.sql" %}

SELECT track_id AS {{ id_column }}, title, stage, task_type, state, arrived_at,
       {{ shown_columns | wrapped(7) }}
FROM history ORDER BY position, arrived_at
