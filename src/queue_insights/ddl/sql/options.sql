{% from "macros.sql" import and_ours with context %}
{% if part == "pending" %}
SELECT k.{{ tasks.task_type }}, count(*) FROM {{ tasks.rows }} AS k
WHERE k.{{ tasks.status }} = 'pending'{{ and_ours("k") }} GROUP BY 1
{% elif part == "move" %}
UPDATE {{ tracks.rows }} SET {{ tracks.stage }} = :stage
{% else %}
-- Tables like the two, with a sample in the first.
CREATE TABLE {{ copy.tracks.table }} (LIKE {{ tracks.table }} INCLUDING ALL EXCLUDING GENERATED);
CREATE TABLE {{ copy.tasks.table }} (LIKE {{ tasks.table }} INCLUDING ALL);
INSERT INTO {{ copy.tracks.table }} OVERRIDING SYSTEM VALUE SELECT * FROM {{ tracks.rows }} LIMIT {{ sample }};
{% endif %}
