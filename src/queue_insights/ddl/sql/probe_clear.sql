{% from "macros.sql" import of_track with context %}
DELETE FROM {{ tasks.table }} AS k USING {{ tracks.table }} AS t
WHERE {{ of_track("k", "t") }} AND t.{{ tracks.id }} = :track
  AND k.{{ tasks.task_type }} IN ({{ steps | map(attribute="task") | map("text") | wrapped(6) }})
