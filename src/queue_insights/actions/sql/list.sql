{% include "selection.sql" %},
numbered AS (
    SELECT position, id::text AS id, arrived_at,
           row_number() OVER (PARTITION BY position ORDER BY arrived_at, track_id) - 1 AS number
    FROM taken),
chunk AS (  -- as many as batches take together, in order of arrival
    SELECT position, number / :chunk AS part, array_agg(id ORDER BY number) AS ids,
           array_agg(arrived_at ORDER BY number) AS arrived
    FROM numbered GROUP BY 1, 2),
stored AS (  -- of each step no more than was planned, and one step after the other
    INSERT INTO queue_insights.targets (run, chunk, task_type, ids, arrived)
    SELECT :run, a.number * 1000000000000 + part, a.task_type, ids[1:most], arrived[1:most]
    FROM chunk JOIN allowed AS a USING (position)
    CROSS JOIN LATERAL (SELECT least(coalesce(planned - part * :chunk, :chunk), :chunk)::int) AS up_to (most)
    WHERE most > 0)
SELECT s.task_type, coalesce(sum(cardinality(ids)), 0)::bigint AS rows
FROM step AS s LEFT JOIN chunk USING (position) GROUP BY s.task_type
