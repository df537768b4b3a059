-- Que 2's job table as its migrations leave it, and jobs in every situation that it knows. Who runs a
-- job holds an advisory lock on its id, which no table tells: see `locked` in __init__.py.
CREATE TABLE que_jobs (
    priority smallint NOT NULL DEFAULT 100,
    run_at timestamptz NOT NULL DEFAULT now(),
    id bigserial PRIMARY KEY,
    job_class text NOT NULL,
    error_count integer NOT NULL DEFAULT 0,
    last_error_message text,
    queue text NOT NULL DEFAULT 'default',
    last_error_backtrace text,
    finished_at timestamptz,
    expired_at timestamptz,
    args jsonb NOT NULL DEFAULT '[]',
    data jsonb NOT NULL DEFAULT '{}',
    job_schema_version integer DEFAULT 2,
    kwargs jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX que_poll_idx ON que_jobs (queue, priority, run_at, id) WHERE finished_at IS NULL AND expired_at IS NULL;

CREATE TABLE truth AS
SELECT (row_number() OVER ())::text AS id, story.*, nullif(replace(message, '#', n::text), '') AS error
FROM (VALUES
    -- kind, our state, how many, errors, due in, ended ago, expired ago, message
    ('Resize', 'completed', 20, 0, '-2 h'::interval, '89 min'::interval, NULL::interval, ''),  -- only with `finish`
    ('Resize', 'pending', 6, 0, '-1 h', NULL, NULL, ''),
    ('Doomed', 'exhausted', 4, 16, '-2 h', NULL, '59 min', 'Net::Error: track # of ''Mo'': HTTP 404'),
    ('Slow', 'backing_off', 3, 1, '10 years', NULL, NULL, 'Timeout: no answer within # s'),
    ('Flaky', 'retryable', 2, 2, '-1 min', NULL, NULL, 'Timeout: no answer within # s'),
    ('Later', 'backing_off', 5, 0, '10 years', NULL, NULL, ''),
    ('Mail', 'pending', 6, 0, '-1 h', NULL, NULL, ''),
    ('Hang', 'running', 3, 0, '-1 d', NULL, NULL, '')
) AS story (kind, state, jobs, errors, due, ended, expired, message),
    generate_series(1, story.jobs) AS n;

INSERT INTO que_jobs (job_class, error_count, run_at, finished_at, expired_at, last_error_message)
SELECT kind, errors, now() + due, now() - ended, now() - expired, error FROM truth ORDER BY id::int;
