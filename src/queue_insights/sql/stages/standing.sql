{% from "macros.sql" import state, of_track, leading_to with context %}
{#- A column of the track that lists are to show is added here; reads, views and actions select from it. -#}
{% include "step.sql" %},
standing AS (  -- the tracks that stand at a step now, one row for each task that is due there
    SELECT s.position, s.stage, s.task_type, t.{{ tracks.id }} AS track_id, t.{{ tracks.title }} AS title,
           {{ state("k", "s") }} AS state,
           coalesce(before.completed_at, k.{{ tasks.created_at }}, t.{{ updated }}) AS arrived_at,
           before.completed_at AS previous_completed_at,
           {{ row_columns | wrapped(11) }}
    FROM step AS s
    JOIN {{ tracks.rows }} AS t ON t.{{ tracks.stage }} = s.stage
        AND t.{{ tracks.stage }} IN ({{ stages | map("text") | wrapped(12, 23) }})  -- for the partial index
    LEFT JOIN LATERAL (  -- OFFSET 0: one look at the unique key for each track, however long the history
        SELECT * FROM {{ tasks.rows }} AS k
        WHERE {{ of_track("k", "t") }}
          AND k.{{ tasks.task_type }} = s.task_type OFFSET 0) AS k ON true
    LEFT JOIN LATERAL (
        SELECT max(p.{{ tasks.completed_at }}) AS completed_at FROM {{ tasks.rows }} AS p
        WHERE {{ of_track("p", "t") }}
          AND p.{{ tasks.task_type }} IN ({{ leading_to("s") }})) AS before ON true)
