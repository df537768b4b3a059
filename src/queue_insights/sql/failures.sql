{% from "macros.sql" import without_digits, without_names with context %}
{% include "failing.sql" %},
message AS (  -- each text once: many rows share one, and to find its kind is dear
    SELECT position, error_message,
           count(*) FILTER (WHERE state <> 'elsewhere') AS rows,
           count(*) FILTER (WHERE state = 'exhausted') AS exhausted,
           min(last_attempt_at) AS known_since,
           min(last_attempt_at) FILTER (WHERE state <> 'elsewhere') AS first_seen,
           max(last_attempt_at) FILTER (WHERE state <> 'elsewhere') AS last_seen,
           count(*) FILTER (WHERE state <> 'elsewhere' AND last_attempt_at > now() - interval '1 hour') AS last_hour,
           count(*) FILTER (WHERE state <> 'elsewhere' AND last_attempt_at > now() - interval '1 day') AS last_day,
           count(*) FILTER (WHERE state <> 'elsewhere' AND last_attempt_at > now() - interval '7 days') AS last_week
    FROM failing GROUP BY 1, 2),
masked AS (
    SELECT position, {{ without_digits("error_message" | sql) }} AS error_message,
           sum(rows) AS rows, sum(exhausted) AS exhausted, min(known_since) AS known_since,
           min(first_seen) AS first_seen, max(last_seen) AS last_seen,
           sum(last_hour) AS last_hour, sum(last_day) AS last_day, sum(last_week) AS last_week
    FROM message GROUP BY 1, 2),
kind AS (
    SELECT *, {{ without_names("error_message" | sql) }} AS error FROM masked)
SELECT task_type, left(md5(error), 8) AS failure, error, sum(rows)::bigint AS rows, sum(exhausted)::bigint AS exhausted,
       sum(rows - exhausted)::bigint AS retryable, min(first_seen) AS first_seen, max(last_seen) AS last_seen,
       sum(last_hour)::bigint AS last_hour, sum(last_day)::bigint AS last_day, sum(last_week)::bigint AS last_week,
       coalesce(min(known_since) >= :start, false) AS new
FROM kind JOIN step USING (position){% if task %} WHERE task_type = :task{% endif +%}
GROUP BY position, task_type, error HAVING sum(rows) > 0
ORDER BY sum(rows) DESC, position, error{% if limit %} LIMIT :limit{% endif %}
