{% from "macros.sql" import and_ours with context %}
{% include "standing.sql" %},
here AS (
    SELECT position, count(*) FILTER (WHERE state = 'missing') AS hidden,
           count(*) FILTER (WHERE state IN ('missing', 'pending', 'retryable')) AS eligible,
           count(*) FILTER (WHERE status IN ('pending', 'failed')) AS open_here
    FROM standing GROUP BY position),
rows_of AS (
    SELECT s.position, count(*) FILTER (WHERE k.{{ tasks.status }} = 'pending') AS visible, count(*) AS open
    FROM {{ tasks.rows }} AS k JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    WHERE k.{{ tasks.status }} IN ('pending', 'failed'){{ and_ours("k") }} GROUP BY s.position)
{% if sources %}
, said_by_rows AS (  -- getPendingTasks, without its limit
    SELECT k.{{ tasks.task_type }} AS task_type, count(*) AS said
    FROM {{ tasks.rows }} AS k JOIN {{ tracks.rows }} AS t ON t.{{ tracks.id }} = k.{{ tasks.track_id }}
    WHERE k.{{ tasks.status }} = 'pending' GROUP BY 1)
{% if task_summary %}
, said_by_summary AS (
    SELECT task_type, sum(count) AS said FROM {{ task_summary }} WHERE status = 'pending' GROUP BY 1)
{% endif %}
{% if audio_progress %}
, said_by_progress AS (
    SELECT t.{{ tracks.stage }} AS stage, sum(v.pending) AS said
    FROM {{ tracks.rows }} AS t JOIN {{ audio_progress }} AS v ON v.{{ tracks.id }} = t.{{ tracks.id }} GROUP BY 1)
{% endif %}
{% endif %}
SELECT step.stage, step.task_type, coalesce(eligible, 0) AS eligible, coalesce(visible, 0) AS visible,
       coalesce(hidden, 0) AS hidden, coalesce(open, 0) - coalesce(open_here, 0) AS orphans,
       CASE WHEN hidden > 0 THEN 'hidden'
            WHEN coalesce(open, 0) > coalesce(open_here, 0) THEN 'overstated'
            ELSE 'visible' END AS verdict
{%- if sources %},
       coalesce(said_by_rows.said, 0) AS get_pending_tasks,
       {% if task_summary %}coalesce(said_by_summary.said, 0)::bigint{% else %}NULL::bigint{% endif %} AS task_summary,
       {% if audio_progress %}coalesce(said_by_progress.said, 0)::bigint{% else %}NULL::bigint{% endif %} AS audio_progress
{%- endif +%}
FROM step LEFT JOIN here USING (position) LEFT JOIN rows_of USING (position)
{% if sources %}
LEFT JOIN said_by_rows ON said_by_rows.task_type = step.task_type
{% if task_summary %}
LEFT JOIN said_by_summary ON said_by_summary.task_type::text = step.task_type::text
{% endif %}
{% if audio_progress %}
LEFT JOIN said_by_progress ON said_by_progress.stage = step.stage
{% endif %}
{% endif %}
ORDER BY position
