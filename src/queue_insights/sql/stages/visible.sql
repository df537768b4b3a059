{% from "macros.sql" import and_ours with context %}
rows_of AS (
    SELECT s.position, count(*) AS visible
    FROM {{ tasks.rows }} AS k JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    WHERE k.{{ tasks.status }} = 'pending'{{ and_ours("k") }} GROUP BY s.position)
