{% from "macros.sql" import and_ours with context %}
{% include "standing.sql" %},
inside AS (  -- the tracks that wait or are worked on, at the first step that is due
    SELECT track_id, min(position) AS position, min(arrived_at) AS arrived_at
    FROM standing
    WHERE state IN ('missing', 'pending', 'retryable', 'backing_off', 'running')
      AND hashtext(track_id::text) % :one_in = 0
    GROUP BY track_id),
passed AS (  -- when each track completed each step
    SELECT k.{{ tasks.track_id }} AS track_id, min(k.{{ tasks.created_at }}) AS made_at,
{% for s in steps %}
           max(k.{{ tasks.completed_at }}) FILTER (WHERE s.position = {{ s.position }}) AS completed_{{ s.position }},
           max(k.{{ tasks.attempts }}) FILTER (WHERE s.position = {{ s.position }} AND k.{{ tasks.completed_at }} IS NOT NULL)
               AS attempts_{{ s.position }}{% if not loop.last %},{% endif +%}
{% endfor %}
    FROM {{ tasks.rows }} AS k JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    WHERE k.{{ tasks.created_at }} >= :start{{ and_ours("k") }}
      AND hashtext(k.{{ tasks.track_id }}::text) % :one_in = 0
    GROUP BY k.{{ tasks.track_id }})
SELECT least(made_at, arrived_at) AS entered_at, 'completed_' || position AS due,
{% for s in steps %}
       completed_{{ s.position }}, attempts_{{ s.position }}{% if not loop.last %},{% endif +%}
{% endfor %}
FROM passed FULL JOIN inside USING (track_id)
WHERE position IS NOT NULL OR completed_{{ steps[-1].position }} IS NOT NULL
