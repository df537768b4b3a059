{% from "macros.sql" import and_ours, of_track with context %}
-- The rows that throughput, durations and flow cannot show.
{% include "step.sql" %}

SELECT count(*) FILTER (WHERE k.{{ tasks.status }} = 'completed') AS undated,
       count(*) FILTER (WHERE k.{{ tasks.status }} <> 'completed') AS moved_on
FROM {{ tasks.rows }} AS k JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
LEFT JOIN {{ tracks.rows }} AS t ON {{ of_track("k", "t") }}
WHERE CASE k.{{ status_text }}
          WHEN 'completed' THEN k.{{ tasks.completed_at }} IS NULL
          WHEN 'running' THEN t.{{ tracks.stage }} IS DISTINCT FROM s.stage
          WHEN 'skipped' THEN t.{{ tracks.stage }} IS DISTINCT FROM s.stage END{{ and_ours("k") }}
