-- Solid Queue's tables as its schema makes them, and jobs in every situation that it knows.
CREATE TABLE solid_queue_jobs (
    id bigserial PRIMARY KEY,
    queue_name varchar NOT NULL, class_name varchar NOT NULL, arguments text,
    priority integer NOT NULL DEFAULT 0, active_job_id varchar, concurrency_key varchar,
    scheduled_at timestamp(6), finished_at timestamp(6),
    created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL
);
CREATE INDEX ON solid_queue_jobs (finished_at);
CREATE INDEX ON solid_queue_jobs (scheduled_at, finished_at);
CREATE TABLE solid_queue_processes (
    id bigserial PRIMARY KEY,
    kind varchar NOT NULL, name varchar NOT NULL,
    supervisor_id bigint, pid integer NOT NULL, hostname varchar, metadata text,
    last_heartbeat_at timestamp(6) NOT NULL, created_at timestamp(6) NOT NULL
);
CREATE TABLE solid_queue_failed_executions (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL UNIQUE REFERENCES solid_queue_jobs ON DELETE CASCADE,
    error text, created_at timestamp(6) NOT NULL
);
CREATE TABLE solid_queue_claimed_executions (LIKE solid_queue_failed_executions INCLUDING ALL);
ALTER TABLE solid_queue_claimed_executions DROP error, ADD process_id bigint;
CREATE TABLE solid_queue_ready_executions (
    LIKE solid_queue_claimed_executions INCLUDING ALL,
    queue_name varchar NOT NULL, priority integer NOT NULL DEFAULT 0
);
ALTER TABLE solid_queue_ready_executions DROP process_id;
CREATE TABLE solid_queue_scheduled_executions (
    LIKE solid_queue_ready_executions INCLUDING ALL, scheduled_at timestamp(6) NOT NULL
);
CREATE TABLE solid_queue_blocked_executions (
    LIKE solid_queue_ready_executions INCLUDING ALL,
    concurrency_key varchar NOT NULL, expires_at timestamp(6) NOT NULL
);

DELETE FROM truth WHERE state = 'skipped' OR kind IN ('slow', 'flaky');
UPDATE truth SET error = '{"exception_class":"Net::Error","message":"' || error || '"}';
INSERT INTO solid_queue_jobs (id, queue_name, class_name, scheduled_at, finished_at, created_at, updated_at)
SELECT id::int, 'default', kind, utc + due, CASE state WHEN 'completed' THEN utc - ended END,
    utc - interval '3 days', utc
FROM truth;
INSERT INTO solid_queue_processes (id, kind, last_heartbeat_at, pid, created_at, name)
SELECT id::int, 'Worker', utc - seen, 7, utc, id FROM truth WHERE seen IS NOT NULL;
INSERT INTO solid_queue_ready_executions (job_id, queue_name, created_at)
SELECT id::int, 'default', utc FROM truth WHERE state = 'pending' AND kind <> 'later';
INSERT INTO solid_queue_scheduled_executions (job_id, queue_name, created_at, scheduled_at)
SELECT id::int, 'default', utc, utc + due FROM truth WHERE kind = 'later';
INSERT INTO solid_queue_blocked_executions (job_id, queue_name, created_at, concurrency_key, expires_at)
SELECT id::int, 'default', utc, 'one', utc + interval '3 min' FROM truth WHERE state = 'blocked';
INSERT INTO solid_queue_claimed_executions (job_id, process_id, created_at)
SELECT id::int, CASE WHEN seen IS NOT NULL THEN id::int END, utc - started FROM truth WHERE kind = 'hang';
INSERT INTO solid_queue_failed_executions (job_id, error, created_at)
SELECT id::int, error, utc - started FROM truth WHERE state = 'exhausted';
