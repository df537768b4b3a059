{% from "macros.sql" import of_track with context %}
{% if part == "pick" %}
-- A track that nobody has locked and that is not at the first stage, so that every move is a change.
SELECT {{ tracks.id }} FROM {{ tracks.rows }} WHERE {{ tracks.stage }} IS DISTINCT FROM {{ stages[0] | text }}
LIMIT 1 FOR UPDATE SKIP LOCKED
{% elif part == "move" %}
UPDATE {{ tracks.rows }} SET {{ tracks.stage }} = :stage WHERE {{ tracks.id }} = :track RETURNING 1
{% else %}
DELETE FROM {{ tasks.rows }} AS k USING {{ tracks.rows }} AS t
WHERE {{ of_track("k", "t") }} AND t.{{ tracks.id }} = :track
  AND k.{{ tasks.task_type }} IN ({{ steps | map(attribute="task") | map("text") | wrapped(6) }})
RETURNING CASE k.{{ tasks.status }} WHEN 'pending' THEN k.{{ tasks.task_type }}::text END
{% endif %}
