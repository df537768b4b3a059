failed AS (
    SELECT position, coalesce(last_attempt_at, ended_at) AS failed_at
    FROM standing WHERE said = 'retryable' AND coalesce(last_attempt_at, ended_at) >= :start
    UNION ALL SELECT position, coalesce(started_at, ended_at)
    FROM left_since WHERE exhausted AND coalesce(started_at, ended_at) >= :start)
