{% include "past.sql" %},
done AS (SELECT position, track_id, completed_at FROM done_since),
undone AS (  -- here now, or ended without being completed; who is not due yet has not come
    SELECT position, track_id, state, arrived_at, arrived_at <= now() AS came
    FROM standing WHERE said NOT IN ('exhausted', 'skipped')
    UNION ALL SELECT position, track_id, 'left', arrived_at, true FROM left_since),
arrival (position, at, n) AS (
    SELECT position, arrived_at, 1 FROM done_since UNION ALL SELECT position, arrived_at, 1 FROM undone WHERE came)
