-- GoodJob 4's tables as its install migration makes them, and jobs in every situation that it knows.
CREATE TABLE good_jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    queue_name text,
    priority integer,
    serialized_params jsonb,
    scheduled_at timestamp(6),
    performed_at timestamp(6),
    finished_at timestamp(6),
    error text,
    created_at timestamp(6) NOT NULL,
    updated_at timestamp(6) NOT NULL,
    active_job_id uuid,
    concurrency_key text,
    cron_key text,
    retried_good_job_id uuid,
    cron_at timestamp(6),
    batch_id uuid,
    batch_callback_id uuid,
    is_discrete boolean,
    executions_count integer,
    job_class text,
    error_event smallint,
    labels text[],
    locked_by_id uuid,
    locked_at timestamp(6)
);
CREATE TABLE good_job_processes (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    created_at timestamp(6) NOT NULL,
    updated_at timestamp(6) NOT NULL,
    state jsonb,
    lock_type smallint
);
CREATE INDEX index_good_jobs_on_scheduled_at ON good_jobs (scheduled_at) WHERE finished_at IS NULL;
CREATE INDEX index_good_jobs_jobs_on_finished_at ON good_jobs (finished_at)
    WHERE retried_good_job_id IS NULL AND finished_at IS NOT NULL;
CREATE INDEX index_good_jobs_on_locked_by_id ON good_jobs (locked_by_id) WHERE locked_by_id IS NOT NULL;

CREATE TABLE truth AS
SELECT gen_random_uuid()::text AS id, story.*, nullif(replace(message, '#', n::text), '') AS error
FROM (VALUES
    -- kind, our state, how many, executions, due in, started ago, ended ago, worker's last sign ago, message
    ('ResizeJob', 'completed', 20, 1, '-2 h'::interval, '90 min'::interval, '89 min'::interval, NULL::interval, ''),
    ('ResizeJob', 'pending', 6, NULL::int, '-1 h', NULL, NULL, NULL, ''),
    ('DoomedJob', 'exhausted', 4, 5, '-2 h', '60 min', '59 min', NULL, 'Net::Error: track # of ''Mo'': HTTP 404'),
    ('SlowJob', 'backing_off', 3, 1, '10 years', NULL, NULL, NULL, 'Timeout: no answer within # s'),
    ('FlakyJob', 'retryable', 2, 2, '-1 min', NULL, NULL, NULL, 'Timeout: no answer within # s'),
    ('LaterJob', 'backing_off', 5, 0, '10 years', NULL, NULL, NULL, ''),
    ('MailJob', 'pending', 6, 0, NULL, NULL, NULL, NULL, ''),  -- without a time: due at once
    ('HangJob', 'stuck', 2, 1, '-1 d', '20 h', NULL, '19 h', ''),
    ('HangJob', 'stuck', 1, 1, '-1 d', '20 h', NULL, NULL, ''),  -- the process's row is gone
    ('HangJob', 'running', 1, 1, '-1 d', '20 h', NULL, '1 s', '')
) AS story (kind, state, jobs, executions, due, started, ended, seen, message),
    generate_series(1, story.jobs) AS n;

WITH now AS (SELECT timezone('UTC', now()) AS at)
INSERT INTO good_job_processes (id, created_at, updated_at)
SELECT id::uuid, at, at - seen FROM truth CROSS JOIN now WHERE seen IS NOT NULL;
WITH now AS (SELECT timezone('UTC', now()) AS at)
INSERT INTO good_jobs (id, active_job_id, queue_name, job_class, executions_count, is_discrete, created_at, updated_at,
    scheduled_at, performed_at, finished_at, error, locked_by_id, locked_at)
SELECT id::uuid, id::uuid, 'default', kind, executions, true, at - interval '3 days', at, at + due, at - started,
    at - ended, error, CASE WHEN state IN ('running', 'stuck') THEN id::uuid END, at - started
FROM truth CROSS JOIN now;
