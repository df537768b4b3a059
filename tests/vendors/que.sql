-- Que 2's job table as its migrations leave it, and jobs in every situation that it knows. Who runs a
-- job holds an advisory lock on its id, which no table tells: see `_lock` in __init__.py.
CREATE TABLE que_jobs (
    priority smallint NOT NULL DEFAULT 100,
    run_at timestamptz NOT NULL DEFAULT now(),
    id bigserial PRIMARY KEY,
    job_class text NOT NULL, queue text NOT NULL DEFAULT 'default',
    error_count integer NOT NULL DEFAULT 0, last_error_message text, last_error_backtrace text,
    finished_at timestamptz, expired_at timestamptz,
    args jsonb NOT NULL DEFAULT '[]', data jsonb NOT NULL DEFAULT '{}',
    job_schema_version integer DEFAULT 2, kwargs jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON que_jobs (queue, priority, run_at, id) WHERE finished_at IS NULL AND expired_at IS NULL;

DELETE FROM truth WHERE state IN ('skipped', 'blocked', 'missing');
UPDATE truth SET state = 'running' WHERE state = 'stuck';  -- who holds the lock is alive
INSERT INTO que_jobs (id, job_class, error_count, run_at, finished_at, expired_at, last_error_message)
SELECT id::int, kind, CASE WHEN error IS NULL THEN 0 ELSE tries END, now() + due,
    CASE state WHEN 'completed' THEN now() - ended END,  -- only with `finish`
    CASE state WHEN 'exhausted' THEN now() - ended END, error
FROM truth;
