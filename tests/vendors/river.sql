-- River's job table as its migrations up to 6 leave it, and jobs in every situation that it knows.
-- The table `truth` is the story; `state` there is what our words for it are.
CREATE TYPE river_job_state AS ENUM
    ('available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');
CREATE TABLE river_job (
    id bigserial PRIMARY KEY,
    state river_job_state NOT NULL DEFAULT 'available',
    attempt smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL CHECK (max_attempts > 0),
    attempted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    finalized_at timestamptz,
    scheduled_at timestamptz NOT NULL DEFAULT now(),
    priority smallint NOT NULL DEFAULT 1 CHECK (priority BETWEEN 1 AND 4),
    args jsonb NOT NULL DEFAULT '{}',
    attempted_by text[],
    errors jsonb[],
    kind text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    queue text NOT NULL DEFAULT 'default',
    tags varchar(255)[] NOT NULL DEFAULT '{}',
    unique_key bytea,
    unique_states bit(8),
    CONSTRAINT finalized_or_finalized_at_null CHECK (
        (finalized_at IS NULL AND state NOT IN ('cancelled', 'completed', 'discarded'))
        OR (finalized_at IS NOT NULL AND state IN ('cancelled', 'completed', 'discarded')))
);
CREATE INDEX river_job_kind ON river_job (kind);
CREATE INDEX river_job_state_and_finalized_at_index ON river_job (state, finalized_at)
    WHERE finalized_at IS NOT NULL;
CREATE INDEX river_job_prioritized_fetching_index ON river_job (state, queue, priority, scheduled_at, id);

CREATE TABLE truth AS
SELECT (row_number() OVER ())::text AS id, story.*, nullif(replace(message, '#', n::text), '') AS error
FROM (VALUES
    -- kind, our state, how many, River's state, attempt, of, due in, started ago, ended ago, message
    ('resize', 'completed', 20, 'completed', 1, 25, '-2 h'::interval, '90 min'::interval, '89 min'::interval, ''),
    ('resize', 'pending', 6, 'available', 0, 25, '-1 h', NULL, NULL, ''),
    ('doomed', 'exhausted', 4, 'discarded', 3, 3, '-3 h', '70 min', '69 min', 'track # of ''Mo'' not found: HTTP 404'),
    ('slow', 'backing_off', 3, 'retryable', 1, 25, '10 years', '1 h', NULL, 'no answer within # s'),
    ('flaky', 'retryable', 2, 'retryable', 2, 25, '-1 min', '1 h', NULL, 'no answer within # s'),
    ('later', 'backing_off', 5, 'scheduled', 0, 25, '10 years', NULL, NULL, ''),
    ('later', 'pending', 1, 'scheduled', 0, 25, '-1 s', NULL, NULL, ''),  -- due, not moved to available yet
    ('mail', 'pending', 6, 'available', 0, 25, '-1 h', NULL, NULL, ''),
    ('mail', 'skipped', 3, 'cancelled', 1, 25, '-1 h', '50 min', '49 min', 'cancelled by #'),
    ('hang', 'stuck', 2, 'running', 1, 25, '-1 d', '20 h', NULL, ''),
    ('hang', 'running', 1, 'running', 1, 25, '-1 d', '1 min', NULL, ''),
    ('flow', 'blocked', 4, 'pending', 0, 25, '-1 h', NULL, NULL, '')
) AS story (kind, state, jobs, status, attempt, max_attempts, due, started, ended, message),
    generate_series(1, story.jobs) AS n;

INSERT INTO river_job (kind, state, attempt, max_attempts, created_at, scheduled_at, attempted_at, finalized_at, errors)
SELECT kind, status::river_job_state, attempt, max_attempts, now() - interval '3 days', now() + due,
    now() - started, now() - ended,
    CASE WHEN error IS NOT NULL THEN ARRAY[
        jsonb_build_object('attempt', 1, 'error', 'an earlier one', 'at', now() - interval '1 day', 'trace', ''),
        jsonb_build_object('attempt', attempt, 'error', error, 'at', now() - started, 'trace', 'x.go:7')] END
FROM truth ORDER BY id::int;
