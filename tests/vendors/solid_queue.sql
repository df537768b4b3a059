-- Solid Queue's tables as its schema makes them, and jobs in every situation that it knows.
CREATE TABLE solid_queue_jobs (
    id bigserial PRIMARY KEY,
    queue_name varchar NOT NULL,
    class_name varchar NOT NULL,
    arguments text,
    priority integer NOT NULL DEFAULT 0,
    active_job_id varchar,
    scheduled_at timestamp(6),
    finished_at timestamp(6),
    concurrency_key varchar,
    created_at timestamp(6) NOT NULL,
    updated_at timestamp(6) NOT NULL
);
CREATE INDEX index_solid_queue_jobs_on_finished_at ON solid_queue_jobs (finished_at);
CREATE INDEX index_solid_queue_jobs_for_alerting ON solid_queue_jobs (scheduled_at, finished_at);
CREATE TABLE solid_queue_processes (
    id bigserial PRIMARY KEY,
    kind varchar NOT NULL,
    last_heartbeat_at timestamp(6) NOT NULL,
    supervisor_id bigint,
    pid integer NOT NULL,
    hostname varchar,
    metadata text,
    created_at timestamp(6) NOT NULL,
    name varchar NOT NULL
);
CREATE TABLE solid_queue_ready_executions (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL UNIQUE REFERENCES solid_queue_jobs ON DELETE CASCADE,
    queue_name varchar NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    created_at timestamp(6) NOT NULL
);
CREATE TABLE solid_queue_scheduled_executions (
    LIKE solid_queue_ready_executions INCLUDING ALL,
    scheduled_at timestamp(6) NOT NULL
);
CREATE TABLE solid_queue_blocked_executions (
    LIKE solid_queue_ready_executions INCLUDING ALL,
    concurrency_key varchar NOT NULL,
    expires_at timestamp(6) NOT NULL
);
CREATE TABLE solid_queue_claimed_executions (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL UNIQUE REFERENCES solid_queue_jobs ON DELETE CASCADE,
    process_id bigint,
    created_at timestamp(6) NOT NULL
);
CREATE TABLE solid_queue_failed_executions (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL UNIQUE REFERENCES solid_queue_jobs ON DELETE CASCADE,
    error text,
    created_at timestamp(6) NOT NULL
);

CREATE TABLE truth AS
SELECT (row_number() OVER ())::text AS id, story.*, timezone('UTC', now()) AS now,
    '{"exception_class":"Net::Error","message":"' || nullif(replace(message, '#', n::text), '') || '"}' AS error
FROM (VALUES
    -- kind, our state, how many, due in, started ago, ended ago, worker's last sign ago, message
    ('ResizeJob', 'completed', 20, '-2 h'::interval, NULL::interval, '89 min'::interval, NULL::interval, ''),
    ('ResizeJob', 'pending', 6, '-1 h', NULL, NULL, NULL, ''),
    ('DoomedJob', 'exhausted', 4, '-2 h', '60 min', NULL, NULL, 'track # not found: HTTP 404'),
    ('LaterJob', 'backing_off', 5, '10 years', NULL, NULL, NULL, ''),
    ('LaterJob', 'pending', 1, '-1 s', NULL, NULL, NULL, ''),  -- due, not dispatched yet
    ('MailJob', 'pending', 6, '-1 h', NULL, NULL, NULL, ''),
    ('OneJob', 'blocked', 3, '-1 h', NULL, NULL, NULL, ''),
    ('HangJob', 'stuck', 2, '-1 d', '20 h', NULL, '19 h', ''),
    ('HangJob', 'stuck', 1, '-1 d', '20 h', NULL, NULL, ''),  -- the process's row is gone
    ('HangJob', 'running', 1, '-1 d', '20 h', NULL, '1 s', ''),
    ('LostJob', 'missing', 2, '-1 d', NULL, NULL, NULL, '')  -- no execution of any sort: nobody will ever take it
) AS story (kind, state, jobs, due, started, ended, seen, message),
    generate_series(1, story.jobs) AS n;

INSERT INTO solid_queue_jobs (queue_name, class_name, scheduled_at, finished_at, created_at, updated_at)
SELECT 'default', kind, now + due, now - ended, now - interval '3 days', now FROM truth ORDER BY id::int;
INSERT INTO solid_queue_processes (id, kind, last_heartbeat_at, pid, created_at, name)
SELECT id::int, 'Worker', now - seen, 7, now, id FROM truth WHERE seen IS NOT NULL;
INSERT INTO solid_queue_ready_executions (job_id, queue_name, created_at)
SELECT id::int, 'default', now FROM truth WHERE state = 'pending' AND kind <> 'LaterJob';
INSERT INTO solid_queue_scheduled_executions (job_id, queue_name, created_at, scheduled_at)
SELECT id::int, 'default', now, now + due FROM truth WHERE kind = 'LaterJob';
INSERT INTO solid_queue_blocked_executions (job_id, queue_name, created_at, concurrency_key, expires_at)
SELECT id::int, 'default', now, 'one', now + interval '3 min' FROM truth WHERE state = 'blocked';
INSERT INTO solid_queue_claimed_executions (job_id, process_id, created_at)
SELECT id::int, CASE WHEN seen IS NOT NULL THEN id::int END, now - started FROM truth WHERE kind = 'HangJob';
INSERT INTO solid_queue_failed_executions (job_id, error, created_at)
SELECT id::int, error, now - started FROM truth WHERE state = 'exhausted';
