-- GoodJob 4's tables as its install migration makes them, and jobs in every situation that it knows.
CREATE TABLE good_jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    queue_name text, priority integer, serialized_params jsonb,
    scheduled_at timestamp(6), performed_at timestamp(6), finished_at timestamp(6),
    error text,
    created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL,
    active_job_id uuid, concurrency_key text,
    cron_key text, retried_good_job_id uuid, cron_at timestamp(6),
    batch_id uuid, batch_callback_id uuid,
    is_discrete boolean, executions_count integer, job_class text, error_event smallint, labels text[],
    locked_by_id uuid, locked_at timestamp(6)
);
CREATE TABLE good_job_processes (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL,
    state jsonb, lock_type smallint
);
CREATE INDEX ON good_jobs (scheduled_at) WHERE finished_at IS NULL;
CREATE INDEX ON good_jobs (finished_at) WHERE retried_good_job_id IS NULL AND finished_at IS NOT NULL;
CREATE INDEX ON good_jobs (locked_by_id) WHERE locked_by_id IS NOT NULL;

DELETE FROM truth WHERE state IN ('skipped', 'blocked', 'missing');
UPDATE truth SET id = gen_random_uuid()::text;
INSERT INTO good_job_processes (id, created_at, updated_at)
SELECT id::uuid, utc, utc - seen FROM truth WHERE seen IS NOT NULL;
INSERT INTO good_jobs (id, active_job_id, queue_name, job_class, executions_count, is_discrete, created_at,
    updated_at, scheduled_at, performed_at, finished_at, error, locked_by_id, locked_at)
SELECT id::uuid, id::uuid, 'default', kind, tries, true, utc - interval '3 days', utc,
    CASE WHEN kind <> 'mail' THEN utc + due END,  -- without a time: due at once
    CASE WHEN state NOT IN ('backing_off', 'retryable') THEN utc - started END, utc - ended, error,
    CASE WHEN kind = 'hang' THEN id::uuid END, utc - started
FROM truth;
