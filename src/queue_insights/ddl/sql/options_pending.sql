{% from "macros.sql" import and_ours with context %}
SELECT k.{{ tasks.task_type }}, count(*) FROM {{ tasks.table }} AS k
WHERE k.{{ tasks.status }} = 'pending'{{ and_ours("k") }} GROUP BY 1
