{% from "macros.sql" import and_ours, of_track, join_previous, steps_behind with context %}
{% include "standing.sql" %},
done AS NOT MATERIALIZED (  -- completed since then; the bulk, which parallel workers count
    SELECT s.position, k.{{ tasks.track_id }} AS track_id, least(k.{{ tasks.created_at }}, now()) AS created_at,
           least(k.{{ tasks.completed_at }}, now()) AS completed_at  -- clocks differ
    FROM {{ tasks.rows }} AS k
    JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    WHERE k.{{ tasks.completed_at }} >= :start
      AND k.{{ tasks.status }} = 'completed'{{ and_ours("k") }}),
undone AS (  -- stands there now, or left without completing: its track stands further on
    SELECT position, track_id, CASE state WHEN 'skipped' THEN 'left' ELSE state END AS state, arrived_at,
           previous_completed_at, true AS came
    FROM standing WHERE state <> 'drifted'
    UNION ALL
    SELECT s.position, k.{{ tasks.track_id }}, 'left',
           coalesce(p.{{ tasks.completed_at }}, k.{{ tasks.created_at }}), p.{{ tasks.completed_at }},
           p.{{ tasks.completed_at }} IS NOT NULL OR k.{{ tasks.last_attempt_at }} IS NOT NULL
    FROM {{ tasks.rows }} AS k
    JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    JOIN {{ tracks.rows }} AS t ON {{ of_track("k", "t") }}
    {{ join_previous("k", "s") }}
    WHERE k.{{ tasks.status }} IN ('pending', 'failed') AND t.{{ updated }} >= :start
      AND s.position <= {{ steps_behind("t." ~ stage_text) }}),
{% if branching %}
arrival (position, at, n) AS (  -- several tasks lead to one step: the latest of them is looked up for each
    SELECT k.position, coalesce(p.{{ tasks.completed_at }}, k.{{ tasks.created_at }}), 1
    FROM (SELECT * FROM {{ tasks.rows }} AS k JOIN step ON step.task_type = k.{{ tasks.task_type }}
          WHERE k.{{ tasks.completed_at }} >= :start
      AND k.{{ tasks.status }} = 'completed'{{ and_ours("k") }}) AS k
    {{ join_previous("k", "k") }}
    UNION ALL SELECT position, arrived_at, 1 FROM undone WHERE came)
{% else %}
other AS (  -- with the next row that the track has, to which no completion led
    SELECT u.*, next.position AS next_position, next.created_at AS next_at, next.status AS next_status
    FROM undone AS u LEFT JOIN LATERAL (
        SELECT s.position, l.{{ tasks.created_at }} AS created_at, l.{{ tasks.status }} AS status
        FROM {{ tasks.rows }} AS l JOIN step AS s ON s.task_type = l.{{ tasks.task_type }}
        WHERE l.{{ tasks.owner }} = u.track_id{{ as_owner }} AND s.position > u.position{{ and_ours("l") }}
        ORDER BY s.position LIMIT 1) AS next ON true),
arrival (position, at, n) AS (  -- all but the bulk: to complete a step is to come to the next
    SELECT position, arrived_at, 1 FROM other WHERE came AND previous_completed_at IS NULL
    UNION ALL SELECT next_position, next_at, 1 FROM other WHERE next_status = 'completed'
    UNION ALL SELECT d.position + 1, d.completed_at, -1  -- it completed this, and never moved on
    FROM standing AS d JOIN step AS after ON after.position = d.position + 1
    LEFT JOIN {{ tasks.rows }} AS l ON l.{{ tasks.owner }} = d.track_id{{ as_owner }}
        AND l.{{ tasks.task_type }} = after.task_type{{ and_ours("l") }}
    WHERE d.state = 'drifted' AND (l.{{ tasks.status }} = 'completed') IS NOT TRUE)
{% endif %}
