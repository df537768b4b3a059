{% from "macros.sql" import of_track with context %}
SELECT k.{{ tasks.task_type }} FROM {{ tasks.table }} AS k JOIN {{ tracks.table }} AS t ON {{ of_track("k", "t") }}
WHERE t.{{ tracks.id }} = :track AND k.{{ tasks.status }} = 'pending'
