{% include "selection.sql" %}

SELECT track_id AS {{ id_column }}, title, stage, task_type, arrived_at, status, error_message, attempts, max_attempts,
       status_after, attempts_after, max_attempts_after
FROM taken ORDER BY arrived_at, track_id, position LIMIT :rows
