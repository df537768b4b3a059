{% from "macros.sql" import and_ours with context %}
{% include "standing.sql" %}

SELECT (SELECT count(*) FROM {{ tasks.rows }} AS k
        WHERE k.{{ tasks.task_type }} = {{ steps[-1].task | text }} AND k.{{ tasks.completed_at }} >= :start{{ and_ours("k") }}) AS through,
       (SELECT count(DISTINCT track_id) FROM standing
        WHERE state IN ('missing', 'pending', 'retryable', 'backing_off', 'running')) AS inside
