{% from "macros.sql" import and_ours, is_time with context %}
{% include "standing.sql" %},
tracks_at AS (
    SELECT position, count(*) AS total,
{% for name in states %}
           count(*) FILTER (WHERE state = {{ name | text }}) AS {{ name | id }},
{% endfor %}
           count(*) FILTER (WHERE state IN ('missing', 'pending', 'retryable')) AS eligible,
           count(*) FILTER (WHERE state IN ('missing', 'pending', 'retryable', 'backing_off')) AS waiting,
           now() - min(arrived_at) FILTER (WHERE {{ is_time("arrived_at" | sql) }} AND arrived_at <= now()
               AND state IN ('missing', 'pending', 'retryable', 'backing_off')) AS oldest
    FROM standing GROUP BY position),
rows_of AS (
    SELECT s.position, count(*) AS visible
    FROM {{ tasks.rows }} AS k JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    WHERE k.{{ tasks.status }} = 'pending'{{ and_ours("k") }} GROUP BY s.position)
SELECT stage, task_type, {{ counts | map("or_zero") | wrapped(7) }},
       extract(epoch FROM oldest)::float8 AS oldest_waiting_seconds
FROM step LEFT JOIN tracks_at USING (position) LEFT JOIN rows_of USING (position)
ORDER BY position
