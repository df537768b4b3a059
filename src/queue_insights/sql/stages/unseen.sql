{% from "macros.sql" import ours, of_track with context %}
-- The rows that throughput, durations and flow cannot show, or not where they belong.
{% include "step.sql" %}

SELECT count(*) FILTER (WHERE k.{{ tasks.status }} = 'completed' AND k.{{ tasks.completed_at }} IS NULL) AS undated,
       count(*) FILTER (WHERE k.{{ status_text }} IN ('running', 'skipped')
                          AND t.{{ tracks.stage }} IS DISTINCT FROM s.stage) AS moved_on,
       count(*) FILTER (WHERE greatest(k.{{ tasks.created_at }}, k.{{ tasks.last_attempt_at }}, k.{{ tasks.completed_at }})
                          > now() + interval '2 s') AS ahead
FROM {{ tasks.rows }} AS k JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
LEFT JOIN {{ tracks.rows }} AS t ON {{ of_track("k", "t") }}
{% if variant == "b" %}WHERE {{ ours("k") }}{% endif %}
