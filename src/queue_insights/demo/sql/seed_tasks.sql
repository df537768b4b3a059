-- The incident, fourth part: the task rows of the seven steps, in the columns of variant A.

-- An orphan's row never came to be completed, though its track went on.
DELETE FROM seed_history AS history USING seed_standing AS standing
WHERE standing.kind = 'orphaned'
  AND history.item = standing.item AND history.step = standing.step;

-- Columns in the order of audio_tasks in variant A. Ids follow created_at.
CREATE TEMP VIEW seed_task_rows AS
WITH rows AS (
    SELECT item, step, 'completed' AS status, attempts, 3 AS max_attempts,
           CASE WHEN arrived < extract(epoch FROM anchor) - 864000 THEN arrived
                WHEN attempts = 1 THEN ended - duration_ms / 1000.0
                ELSE started END AS created,
           ended - duration_ms / 1000.0 AS last_attempt, NULL::float8 AS next_retry,
           duration_ms, ended AS updated, ended AS completed
    FROM seed_history, seed_parameters
    WHERE step > 0
    UNION ALL
    SELECT item, step, status, attempts, max_attempts, created, last_attempt, next_retry,
           NULL, coalesce(updated, created), NULL
    FROM seed_standing
), ordered AS (
    SELECT row_number() OVER (ORDER BY created, item, step) AS id, rows.* FROM rows
)
SELECT id::int,
       pg_temp.track_id(item) AS spotify_track_id,
       task_type,
       status,
       CASE WHEN completed IS NOT NULL AND step IN (4, 7) THEN cid END AS grove_cid,
       CASE WHEN completed IS NOT NULL AND step = 7 THEN 'lens://' || cid END AS grove_url,
       CASE WHEN completed IS NOT NULL AND step = 4 THEN jsonb '{"model": "htdemucs"}' END
           AS metadata,
       attempts,
       max_attempts,
       CASE WHEN completed IS NULL THEN pg_temp.at_ms(last_attempt)
            ELSE to_timestamp((floor(completed * 1000) - duration_ms) / 1000) END
           AS last_attempt_at,
       pg_temp.at_ms(next_retry) AS next_retry_at,
       CASE WHEN attempts IS DISTINCT FROM 0 AND status IN ('pending', 'failed') THEN messages[kind]
            END AS error_message,
       CASE WHEN attempts IS DISTINCT FROM 0 AND status IN ('pending', 'failed')
            THEN jsonb_build_object('worker', task_type || '-' || 1 + item % 3, 'kind', kind) END
           AS error_details,
       duration_ms AS processing_duration_ms,
       pg_temp.at_ms(created) AS created_at,
       pg_temp.at_ms(updated) AS updated_at,
       pg_temp.at_ms(completed) AS completed_at
FROM ordered
JOIN seed_steps USING (step)
CROSS JOIN LATERAL (
    SELECT 'bafkrei' || left(md5('cid' || item || task_type), 32) AS cid,
           1 + (item / 7 + step) % 4 AS kind
) AS drawn
CROSS JOIN (
    SELECT ARRAY['HTTP 429: rate limit exceeded, retry later',
                 'timeout: no answer within 120 s',
                 'connection reset by peer',
                 'invalid input: no audible vocals found'] AS messages
) AS texts;
