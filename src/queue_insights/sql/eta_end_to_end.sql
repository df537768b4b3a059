{% from "macros.sql" import and_ours with context %}
{% include "standing.sql" %},
inside AS (  -- the tracks that wait or are worked on at any step
    SELECT track_id, min(arrived_at) AS arrived_at
    FROM standing WHERE state IN ('missing', 'pending', 'retryable', 'backing_off', 'running') GROUP BY track_id),
passed AS (  -- when each track's first row was made, and when it completed the last step
    SELECT k.{{ tasks.track_id }} AS track_id, min(k.{{ tasks.created_at }}) AS made_at,
           max(k.{{ tasks.completed_at }}) FILTER (WHERE s.position = {{ steps[-1].position }}) AS left_at
    FROM {{ tasks.rows }} AS k JOIN step AS s ON s.task_type = k.{{ tasks.task_type }}
    WHERE k.{{ tasks.created_at }} >= :start{{ and_ours("k") }}
    GROUP BY k.{{ tasks.track_id }}),
stay AS (
    SELECT least(made_at, arrived_at) AS entered_at, CASE WHEN arrived_at IS NULL THEN left_at END AS left_at
    FROM passed FULL JOIN inside USING (track_id)
    WHERE arrived_at IS NOT NULL OR left_at IS NOT NULL),
event (at, arrivals, completions) AS (
    SELECT least(entered_at, now()), 1, 0 FROM stay
    UNION ALL SELECT least(left_at, now()), 0, 1 FROM stay WHERE left_at IS NOT NULL),
counted AS (
    SELECT floor(extract(epoch FROM at - :zero) / 300)::int AS number,
           sum(arrivals) AS arrivals, sum(completions) AS completions
    FROM event WHERE at >= :start GROUP BY 1)
SELECT (SELECT count(*) FROM inside) AS waiting, (SELECT count(*) FROM inside) AS moving,
       array_agg(number ORDER BY number) FILTER (WHERE arrivals > 0) AS arrivals_interval,
       array_agg(arrivals::int ORDER BY number) FILTER (WHERE arrivals > 0) AS arrivals_n,
       array_agg(number ORDER BY number) FILTER (WHERE completions > 0) AS completions_interval,
       array_agg(completions::int ORDER BY number) FILTER (WHERE completions > 0) AS completions_n
FROM counted
