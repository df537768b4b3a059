{% from "macros.sql" import and_ours with context %}
failed AS (
    SELECT s.position, k.{{ tasks.last_attempt_at }} AS failed_at
    FROM {{ tasks.rows }} AS k JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    WHERE k.{{ tasks.status }} = 'failed'{{ and_ours("k") }}
      AND k.{{ tasks.last_attempt_at }} >= :start)
