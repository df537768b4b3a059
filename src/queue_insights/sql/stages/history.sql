{% from "macros.sql" import state, of_track, leading_to with context %}
{% include "step.sql" %},
track AS (SELECT * FROM {{ tracks.rows }} WHERE {{ tracks.id }} = :id),
mine AS (SELECT k.* FROM track AS t JOIN {{ tasks.rows }} AS k ON {{ of_track("k", "t") }}),
history AS (  -- what the track has of each step, and of other tasks
    SELECT s.position, t.{{ tracks.id }} AS track_id, t.{{ tracks.title }} AS title, t.{{ tracks.stage }} AS stage,
           coalesce(s.task_type, k.{{ tasks.task_type }}) AS task_type,
           CASE WHEN t.{{ tracks.stage }} = s.stage THEN
           {{ state("k", "s") }} END AS state,
           coalesce(before.completed_at, k.{{ tasks.created_at }}, t.{{ updated }}) AS arrived_at,
           {{ row_columns | wrapped(11) }}
    FROM track AS t CROSS JOIN (step AS s FULL JOIN mine AS k ON k.{{ tasks.task_type }} = s.task_type)
    LEFT JOIN LATERAL (
        SELECT max(p.{{ tasks.completed_at }}) AS completed_at FROM mine AS p
        WHERE p.{{ tasks.task_type }} IN ({{ leading_to("s") }})) AS before ON true
    WHERE t.{{ tracks.stage }} = s.stage OR k.{{ tasks.id }} IS NOT NULL)
