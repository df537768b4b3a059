{% include "selection.sql" %}

SELECT s.stage, s.task_type, count(t.position) AS rows,
{% if kind == "delete" %}
       0::bigint AS ends_pending, 0::bigint AS ends_exhausted
{% else %}
       count(t.position) FILTER (WHERE t.attempts_after < t.max_attempts_after) AS ends_pending,
       count(t.position) FILTER (WHERE (t.attempts_after < t.max_attempts_after) IS NOT TRUE) AS ends_exhausted
{% endif %}
FROM step AS s LEFT JOIN taken AS t USING (position)
GROUP BY position, s.stage, s.task_type ORDER BY position
