{% include "visits.sql" %},
{% include "buckets.sql" %},
tally AS (
    SELECT position, came.number AS came, took.number AS took, went.number AS went, reprocessed, count(*) AS n
    FROM done
    LEFT JOIN bucket AS came ON came.number = width_bucket(arrived_at, (SELECT at FROM edges))
    LEFT JOIN bucket AS took ON took.number = width_bucket(coalesce(taken_at, departed_at), (SELECT at FROM edges))
    LEFT JOIN bucket AS went ON went.number = width_bucket(departed_at, (SELECT at FROM edges))
    GROUP BY 1, 2, 3, 4, 5),
event (position, number, came, took, went, lost, redone) AS (
    SELECT position, came, n, 0, 0, 0, 0 FROM tally UNION ALL SELECT position, took, 0, n, 0, 0, 0 FROM tally
    UNION ALL SELECT position, went, 0, 0, n, 0, CASE WHEN reprocessed THEN n ELSE 0 END FROM tally
    UNION ALL SELECT position, width_bucket(arrived_at, (SELECT at FROM edges)), 1, 0, 0, 0, 0 FROM rest
    UNION ALL
    SELECT position, width_bucket(coalesce(taken_at, departed_at), (SELECT at FROM edges)), 0, 1, 0, 0, 0 FROM rest
    UNION ALL SELECT position, width_bucket(departed_at, (SELECT at FROM edges)), 0, 0, 1, 1, 0 FROM rest),
grid AS (
    SELECT begins, number, position, stage, task_type, coalesce(sum(came), 0) AS arrivals,
           coalesce(sum(took), 0) AS taken, coalesce(sum(went), 0) AS departures,
           coalesce(sum(lost), 0) AS lost, coalesce(sum(redone), 0) AS reprocessed
    FROM bucket CROSS JOIN step LEFT JOIN event USING (position, number) GROUP BY 1, 2, 3, 4, 5),
here AS (
    SELECT position, count(*) AS depth, count(*) FILTER (WHERE taken_at IS NULL) AS waiting
    FROM rest WHERE departed_at IS NULL GROUP BY 1)
SELECT begins AS bucket, stage, task_type, arrivals::bigint, departures::bigint, lost::bigint AS left,
       (coalesce(depth, 0) - sum(arrivals - departures) OVER later)::bigint AS depth,
       (coalesce(waiting, 0) - sum(arrivals - taken) OVER later)::bigint AS waiting, reprocessed::bigint
FROM grid LEFT JOIN here USING (position){% if task %} WHERE task_type = :task{% endif +%}
WINDOW later AS (PARTITION BY position ORDER BY number DESC)
ORDER BY begins, position
