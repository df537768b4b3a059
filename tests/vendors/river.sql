-- River's job table as its migrations up to 6 leave it, and jobs in every situation that it knows.
CREATE TYPE river_job_state AS ENUM
    ('available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');
CREATE TABLE river_job (
    id bigserial PRIMARY KEY,
    state river_job_state NOT NULL DEFAULT 'available',
    attempt smallint NOT NULL DEFAULT 0, max_attempts smallint NOT NULL CHECK (max_attempts > 0),
    created_at timestamptz NOT NULL DEFAULT now(), scheduled_at timestamptz NOT NULL DEFAULT now(),
    attempted_at timestamptz, finalized_at timestamptz,
    priority smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 1 AND 4),
    kind text NOT NULL, queue text NOT NULL DEFAULT 'default',
    args jsonb NOT NULL DEFAULT '{}', metadata jsonb NOT NULL DEFAULT '{}',
    attempted_by text[], errors jsonb[],
    tags varchar(255)[] NOT NULL DEFAULT '{}',
    unique_key bytea, unique_states bit(8),
    CONSTRAINT finalized_or_finalized_at_null CHECK (
        (finalized_at IS NULL AND state NOT IN ('cancelled', 'completed', 'discarded'))
        OR (finalized_at IS NOT NULL AND state IN ('cancelled', 'completed', 'discarded')))
);
CREATE INDEX ON river_job (kind);
CREATE INDEX ON river_job (state, finalized_at) WHERE finalized_at IS NOT NULL;
CREATE INDEX ON river_job (state, queue, priority, scheduled_at, id);

DELETE FROM truth WHERE state = 'missing';
INSERT INTO river_job (
    id, kind, state, attempt, max_attempts, created_at, scheduled_at, attempted_at, finalized_at, errors)
SELECT id::int, kind,
    CASE WHEN kind = 'later' THEN 'scheduled' WHEN state = 'pending' THEN 'available'
        WHEN state = 'exhausted' THEN 'discarded' WHEN state = 'skipped' THEN 'cancelled'
        WHEN state = 'blocked' THEN 'pending' WHEN state = 'backing_off' THEN 'retryable'
        WHEN state = 'stuck' THEN 'running' ELSE state END::river_job_state,
    coalesce(tries, 0), CASE state WHEN 'exhausted' THEN tries ELSE 25 END, now() - interval '3 days',
    now() + due, now() - started, now() - ended,
    CASE WHEN error IS NOT NULL THEN ARRAY[
        jsonb_build_object('attempt', 1, 'error', 'an earlier one', 'at', now() - interval '1 day', 'trace', ''),
        jsonb_build_object('attempt', tries, 'error', error, 'at', now() - started, 'trace', 'x.go:7')] END
FROM truth;
