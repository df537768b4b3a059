{% from "macros.sql" import and_ours, of_track, join_previous with context %}
{% include "step.sql" %},
orphaned AS (  -- rows that are open while their track stands elsewhere, or is gone
    SELECT s.position, t.{{ tracks.stage }} AS stage, s.task_type, k.{{ tasks.track_id }} AS track_id,
           t.{{ tracks.title }} AS title,
           coalesce(p.{{ tasks.completed_at }}, k.{{ tasks.created_at }}, t.{{ updated }}) AS arrived_at,
           {{ row_columns | wrapped(11) }}
    FROM {{ tasks.rows }} AS k
    JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    LEFT JOIN {{ tracks.rows }} AS t ON {{ of_track("k", "t") }}
    {{ join_previous("k", "s") }}
    WHERE k.{{ tasks.status }} IN ('pending', 'failed') AND t.{{ tracks.stage }} IS DISTINCT FROM s.stage{{ and_ours("k") }})
