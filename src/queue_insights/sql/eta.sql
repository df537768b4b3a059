{% include "moves.sql" %},
moving (position, at, n) AS (  -- without those that left without completing, or that need an operator
    SELECT position, least(at, now()), n FROM arrival
{% if ahead %}
    UNION ALL SELECT position, created_at, 1 FROM standing  -- waits since then, and is counted as waiting
    WHERE state = 'backing_off' AND arrived_at > now()
{% endif %}
    UNION ALL SELECT position, least(arrived_at, now()), -1 FROM undone
    WHERE came AND state IN ('left', 'stuck', 'exhausted', 'other')),
bucket (number, begins) AS NOT MATERIALIZED (  -- 5 minutes each
    SELECT number::int - 1, begins
    FROM unnest((SELECT array(
             SELECT generate_series(:zero, now(), interval '5 min'))))
        WITH ORDINALITY AS edge (begins, number)),
tally AS (
    SELECT position, {{ ("NULL::int" if branching else "made.number") | sql }} AS made, went.number AS went,
           count(*) AS n FROM done
{% if not branching %}
    LEFT JOIN bucket AS made ON position = 1 AND created_at >= :start
        AND made.begins = date_bin('5 min', created_at, :zero)
{% endif %}
    LEFT JOIN bucket AS went
        ON went.begins = date_bin('5 min', completed_at, :zero)
    GROUP BY 1, 2, 3),
event (position, number, arrivals, completions) AS (
{% if not branching %}
    SELECT position, made, n, 0 FROM tally WHERE made IS NOT NULL
    UNION ALL SELECT position + 1, went, n, 0 FROM tally UNION ALL
{% endif %}
    SELECT position, went, 0, n FROM tally
    UNION ALL SELECT position, floor(extract(epoch FROM at - :zero) / 300)::int,
        n, 0 FROM moving WHERE at >= :start),
counted AS (
    SELECT position, number, sum(arrivals) AS arrivals, sum(completions) AS completions
    FROM event WHERE number IS NOT NULL GROUP BY position, number),
history AS (
    SELECT position,
           array_agg(number ORDER BY number) FILTER (WHERE arrivals > 0) AS arrivals_interval,
           array_agg(arrivals::int ORDER BY number) FILTER (WHERE arrivals > 0) AS arrivals_n,
           array_agg(number ORDER BY number) FILTER (WHERE completions > 0) AS completions_interval,
           array_agg(completions::int ORDER BY number) FILTER (WHERE completions > 0) AS completions_n
    FROM counted GROUP BY position),
here AS (
    SELECT position, count(*) FILTER (WHERE state <> 'running') AS waiting, count(*) AS moving
    FROM standing WHERE state IN ('missing', 'pending', 'retryable', 'backing_off', 'running') GROUP BY position)
SELECT stage, task_type, coalesce(waiting, 0) AS waiting, coalesce(moving, 0) AS moving,
       arrivals_interval, arrivals_n, completions_interval, completions_n
FROM step LEFT JOIN here USING (position)
LEFT JOIN history USING (position){% if task %} WHERE task_type = :task{% endif +%}
ORDER BY position
