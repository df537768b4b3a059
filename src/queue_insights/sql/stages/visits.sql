{% from "macros.sql" import and_ours, same_track, of_track, join_previous, steps_behind with context %}
{% include "standing.sql" %},
done AS NOT MATERIALIZED (  -- completed since then; the bulk, which parallel workers join and count
    SELECT s.position, k.{{ tasks.track_id }} AS track_id,
           least(coalesce(p.{{ tasks.completed_at }}, k.{{ tasks.created_at }}), now()) AS arrived_at,  -- clocks differ
           CASE WHEN k.{{ tasks.last_attempt_at }} >= coalesce(p.{{ tasks.completed_at }}, k.{{ tasks.created_at }})
                 AND k.{{ tasks.last_attempt_at }} <= least(k.{{ tasks.completed_at }}, now()) THEN k.{{ tasks.last_attempt_at }} END AS taken_at,
           least(greatest(k.{{ tasks.completed_at }}, p.{{ tasks.completed_at }}), now()) AS departed_at, true AS completed,
           p.{{ tasks.completed_at }} > k.{{ tasks.completed_at }} AS reprocessed, NULL::timestamptz AS failed_at,
           k.{{ tasks.processing_duration_ms }} AS run_ms
    FROM {{ tasks.rows }} AS k
    JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    {{ join_previous("k", "s") }}
    WHERE k.{{ tasks.completed_at }} >= :start
      AND k.{{ tasks.status }} = 'completed'{{ and_ours("k") }}),
rest AS (
    -- left without completing: the row is open, and the track stands further on
    SELECT s.position, k.{{ tasks.track_id }} AS track_id, came.at AS arrived_at, NULL::timestamptz AS taken_at,
           greatest(went.at, came.at) AS departed_at, false AS completed, false AS reprocessed,
           CASE k.{{ tasks.status }} WHEN 'failed' THEN k.{{ tasks.last_attempt_at }} END AS failed_at, NULL::int AS run_ms
    FROM {{ tasks.rows }} AS k
    JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    JOIN {{ tracks.rows }} AS t ON {{ of_track("k", "t") }}
    {{ join_previous("k", "s") }}
    CROSS JOIN LATERAL (SELECT CASE WHEN p.{{ tasks.completed_at }} IS NOT NULL OR k.{{ tasks.last_attempt_at }} IS NOT NULL
                                    THEN least(coalesce(p.{{ tasks.completed_at }}, k.{{ tasks.created_at }}), now()) END) AS came (at)
    CROSS JOIN LATERAL (SELECT least(coalesce(min(l.{{ tasks.created_at }}), t.{{ updated }}), now())
                        FROM {{ tasks.rows }} AS l JOIN step AS later ON later.task_type = l.{{ tasks.task_type }}
                        WHERE {{ same_track("l", "k") }} AND later.stage <> s.stage
                          AND later.position > s.position) AS went (at)
    WHERE k.{{ tasks.status }} IN ('pending', 'failed') AND t.{{ updated }} >= :start
      AND s.position <= {{ steps_behind("t." ~ stage_text) }}
      AND came.at IS NOT NULL AND went.at >= :start
    UNION ALL  -- there now
    SELECT position, track_id, least(arrived_at, now()),
           CASE WHEN state IN ('running', 'stuck')
               THEN least(greatest(arrived_at, coalesce(last_attempt_at, updated_at)), now()) END,
           CASE state WHEN 'skipped' THEN least(greatest(arrived_at, updated_at), now()) END,
           CASE state WHEN 'skipped' THEN false END, NULL, CASE status WHEN 'failed' THEN last_attempt_at END, NULL
    FROM standing WHERE state <> 'drifted')
