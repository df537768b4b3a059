{% from "macros.sql" import state, and_ours, of_track with context %}
{% include "step.sql" %},
failing AS (  -- the failed rows; those whose track stands at another stage by now are elsewhere
    SELECT s.position, k.{{ tasks.error_message }}::text AS error_message, k.{{ tasks.last_attempt_at }} AS last_attempt_at,
           CASE WHEN t.{{ tracks.stage }} IS DISTINCT FROM s.stage THEN 'elsewhere' ELSE
           {{ state("k", "s") }} END AS state
    FROM {{ tasks.rows }} AS k
    JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    LEFT JOIN {{ tracks.rows }} AS t ON {{ of_track("k", "t") }}
    WHERE k.{{ tasks.status }} = 'failed'{{ and_ours("k") }})
