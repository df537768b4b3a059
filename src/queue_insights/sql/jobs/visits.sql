{% include "past.sql" %},
done AS (
    SELECT position, track_id, arrived_at,
           CASE WHEN started_at BETWEEN arrived_at AND completed_at THEN started_at END AS taken_at,
           completed_at AS departed_at, false AS reprocessed,
           CASE WHEN started_at BETWEEN '1900-01-01Z' AND completed_at
                THEN extract(epoch FROM completed_at - started_at)::float8 * 1000 END AS run_ms
    FROM done_since),
rest AS (  -- ended otherwise
    SELECT position, track_id, arrived_at,
           CASE WHEN started_at BETWEEN arrived_at AND ended_at THEN started_at END AS taken_at, ended_at AS departed_at
    FROM left_since
    UNION ALL  -- there now; who is not due yet has not come
    SELECT position, track_id, arrived_at,
           CASE WHEN state IN ('running', 'stuck') THEN least(greatest(arrived_at, last_attempt_at), now()) END, NULL
    FROM standing WHERE said NOT IN ('exhausted', 'skipped') AND arrived_at <= now())
