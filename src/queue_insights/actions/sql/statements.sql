-- The ledger's statements, by name.

-- name: exists
SELECT EXISTS (  -- from the catalogue: to_regclass would fail for a role that may not look into the schema
    SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'queue_insights' AND c.relname = 'runs')

-- name: alone
SELECT pg_advisory_xact_lock(hashtext('queue_insights.ledger'))

-- name: all_runs
SELECT run, action, pipeline, state, undoing, rows_planned, rows_done, rows_dropped, came_after,
       rows_undone, rows_kept, started_at, last_batch_at, ended_at, role, host, pid, parameters,
       planned, error
FROM queue_insights.runs ORDER BY run DESC

-- name: no_runs
SELECT * FROM jsonb_to_recordset('[]') AS none (
    run bigint, action text, pipeline text, state text, undoing boolean, rows_planned bigint, rows_done bigint,
    rows_dropped bigint, came_after bigint, rows_undone bigint, rows_kept bigint, started_at timestamptz,
    last_batch_at timestamptz, ended_at timestamptz, role text, host text, pid integer, parameters jsonb,
    planned jsonb, error text)

-- name: get
SELECT * FROM queue_insights.runs WHERE run = :run

-- name: unfinished
SELECT * FROM queue_insights.runs
WHERE pipeline = :pipeline AND action = :action AND state = 'running'

-- name: identity
SELECT current_database(), (SELECT oid FROM pg_database WHERE datname = current_database()),
       to_regclass(:tasks)::oid,
       CASE WHEN has_function_privilege('pg_control_system()', 'execute')
            THEN (SELECT system_identifier FROM pg_control_system()) END

-- name: begin
INSERT INTO queue_insights.runs
    (pipeline, fingerprint, variant, action, parameters, host, pid, planned, rows_planned)
VALUES (:pipeline, :fingerprint, :variant, :action, CAST(:parameters AS jsonb), :host, :pid, '{}', 0)
RETURNING run

-- name: accept
UPDATE queue_insights.runs
SET planned = CAST(:planned AS jsonb), rows_planned = :rows_planned, came_after = :came_after
WHERE run = :run

-- name: hold
SELECT * FROM queue_insights.runs WHERE run = :run FOR NO KEY UPDATE

-- name: listed
SELECT unnest(ids) FROM queue_insights.targets WHERE run = :run

-- name: next_chunk
SELECT task_type, chunk FROM queue_insights.targets WHERE run = :run ORDER BY chunk LIMIT 1

-- name: last_batch
SELECT task_type, batch FROM queue_insights.batches
WHERE run = :run AND undone_at IS NULL ORDER BY batch DESC LIMIT 1

-- name: take_over
UPDATE queue_insights.runs
SET state = 'running', undoing = :undoing, fence = fence + 1, error = NULL, ended_at = NULL,
    role = session_user, host = :host, pid = :pid
WHERE run = :run RETURNING fence

-- name: end
UPDATE queue_insights.runs SET state = :state, error = :error, ended_at = clock_timestamp()
WHERE run = :run AND fence = :fence RETURNING run

-- name: stop
UPDATE queue_insights.runs
SET state = 'stopped', fence = fence + 1, ended_at = clock_timestamp()
WHERE run = :run AND state = 'running' RETURNING run

-- name: drop
DELETE FROM queue_insights.runs
WHERE state <> 'running' AND ended_at < now() - CAST(:age AS interval) RETURNING run

-- name: left_alone
SELECT entry ->> 'id' AS id, task_type, entry ->> 'reason' AS reason
FROM queue_insights.batches CROSS JOIN jsonb_array_elements(CASE WHEN :undoing THEN kept ELSE dropped END) AS entry
WHERE run = :run ORDER BY batch
