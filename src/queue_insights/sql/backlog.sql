{% include "standing.sql" %},
tracks_at AS (
    SELECT position, count(*) AS total,
{% for name in states %}
           count(*) FILTER (WHERE state = {{ name | text }}) AS {{ name | id }},
{% endfor %}
           count(*) FILTER (WHERE state IN ('missing', 'pending', 'retryable')) AS eligible,
           count(*) FILTER (WHERE state IN ('missing', 'pending', 'retryable', 'backing_off')) AS waiting,
           now() - min(arrived_at) FILTER (WHERE arrived_at BETWEEN '1900-01-01Z' AND now()
               AND state IN ('missing', 'pending', 'retryable', 'backing_off')) AS oldest
    FROM standing GROUP BY position),
{% include "visible.sql" %}

SELECT stage, task_type, {{ counts | map("or_zero") | wrapped(7) }},
       extract(epoch FROM oldest)::float8 AS oldest_waiting_seconds
FROM step LEFT JOIN tracks_at USING (position) LEFT JOIN rows_of USING (position)
ORDER BY position
