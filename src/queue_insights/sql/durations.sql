{% from "macros.sql" import is_time with context %}
{% include "visits.sql" %},
measured AS (
    SELECT position, count(*) AS completions,
           percentile_cont('{.5,.9,.99}'::float8[]) WITHIN GROUP (ORDER BY run_ms / 1000.0::float8) AS run,
           percentile_cont('{.5,.9,.99}'::float8[]) WITHIN GROUP (ORDER BY
               CASE WHEN reprocessed IS NOT TRUE AND {{ is_time("arrived_at" | sql) }}
                    THEN extract(epoch FROM taken_at - arrived_at)::float8 END) AS wait
    FROM done GROUP BY position),
here AS (
    SELECT position, count(*) AS waiting,
           now() - min(arrived_at) FILTER (WHERE arrived_at BETWEEN '1900-01-01Z' AND now()) AS oldest
    FROM standing WHERE state IN ('missing', 'pending', 'retryable', 'backing_off') GROUP BY position)
SELECT stage, task_type, coalesce(completions, 0) AS completions,
       run[1] AS run_p50_seconds, run[2] AS run_p90_seconds, run[3] AS run_p99_seconds,
       wait[1] AS waiting_p50_seconds, wait[2] AS waiting_p90_seconds, wait[3] AS waiting_p99_seconds,
       coalesce(waiting, 0) AS waiting, extract(epoch FROM oldest)::float8 AS oldest_waiting_seconds
FROM step LEFT JOIN measured USING (position)
LEFT JOIN here USING (position){% if task %} WHERE task_type = :task{% endif +%}
ORDER BY position
