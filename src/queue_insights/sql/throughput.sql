{% include "moves.sql" %},
{% include "failed.sql" %},
{% include "buckets.sql" %},
tally AS (
    SELECT position, {{ ("NULL::int" if branching else "made.number") | sql }} AS made, went.number AS went,
           count(*) AS n FROM done
{% if not branching %}
    LEFT JOIN bucket AS made ON position = 1 AND made.number = width_bucket(created_at, (SELECT at FROM edges))
{% endif %}
    LEFT JOIN bucket AS went ON went.number = width_bucket(completed_at, (SELECT at FROM edges))
    GROUP BY 1, 2, 3),
counted (position, number, arrivals, completions, failures) AS (
{% if not branching %}
    SELECT position, made, n, 0, 0 FROM tally WHERE position = 1
    UNION ALL SELECT position + 1, went, n, 0, 0 FROM tally UNION ALL
{% endif %}
    SELECT position, went, 0, n, 0 FROM tally
    UNION ALL SELECT position, width_bucket(least(at, now()), (SELECT at FROM edges)), n, 0, 0 FROM arrival
    UNION ALL SELECT position, width_bucket(least(failed_at, now()), (SELECT at FROM edges)), 0, 0, 1 FROM failed)
SELECT begins AS bucket, stage, task_type, coalesce(sum(arrivals), 0)::bigint AS arrivals,
       coalesce(sum(completions), 0)::bigint AS completions, coalesce(sum(failures), 0)::bigint AS failures
FROM bucket CROSS JOIN step LEFT JOIN counted USING (position, number){% if task %} WHERE task_type = :task{% endif +%}
GROUP BY begins, position, stage, task_type ORDER BY begins, position
