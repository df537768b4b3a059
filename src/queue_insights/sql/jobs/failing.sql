{% include "standing.sql" %},
failing AS (
    SELECT position, error_message, coalesce(last_attempt_at, ended_at) AS last_attempt_at, state
    FROM standing WHERE said IN ('retryable', 'exhausted'))
