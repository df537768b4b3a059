-- The ledger of queue-insights: what was planned, what each batch changed, and how to undo it.
-- Created on the first apply; a DBA may read and run it first (`queue-insights runs --ddl`).
-- Only the owner writes; `queue-insights grants` prints what lets others read, or act.

CREATE SCHEMA IF NOT EXISTS queue_insights;
REVOKE ALL ON SCHEMA queue_insights FROM PUBLIC;

CREATE TABLE IF NOT EXISTS queue_insights.runs (
    run           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline      text NOT NULL,
    fingerprint   text NOT NULL,                -- of the pipeline file
    variant       text NOT NULL,
    action        text NOT NULL,
    parameters    jsonb NOT NULL,
    planned       jsonb NOT NULL,               -- {task_type: rows}
    state         text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'stopped', 'failed', 'finished', 'undone')),
    undoing       boolean NOT NULL DEFAULT false,
    fence         bigint NOT NULL DEFAULT 1,    -- whoever takes the run over raises it
    role          text NOT NULL DEFAULT session_user,
    host          text NOT NULL,
    pid           integer NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_batch_at timestamptz,
    ended_at      timestamptz,
    rows_planned  bigint NOT NULL,
    rows_done     bigint NOT NULL DEFAULT 0,
    rows_dropped  bigint NOT NULL DEFAULT 0,    -- no longer qualified when their turn came
    came_after    bigint NOT NULL DEFAULT 0,    -- qualified at the start, beyond what was planned
    rows_undone   bigint NOT NULL DEFAULT 0,
    rows_kept     bigint NOT NULL DEFAULT 0,    -- moved on since, so left alone by undo
    error         text
);

-- One unfinished run per pipeline and action.
CREATE UNIQUE INDEX IF NOT EXISTS runs_one_unfinished
    ON queue_insights.runs (pipeline, action) WHERE state = 'running';

-- What is still to do, in order: ids of tracks (backfill) or of task rows. A batch takes its
-- chunks away in the transaction that does the work.
CREATE TABLE IF NOT EXISTS queue_insights.targets (
    run       bigint NOT NULL REFERENCES queue_insights.runs ON DELETE CASCADE,
    chunk     bigint NOT NULL,
    task_type text NOT NULL,
    pass      integer NOT NULL DEFAULT 1,       -- rows that somebody had locked come again
    ids       text[] NOT NULL,
    arrived   timestamptz[] NOT NULL,
    PRIMARY KEY (run, chunk)
);

CREATE TABLE IF NOT EXISTS queue_insights.batches (
    run       bigint NOT NULL REFERENCES queue_insights.runs ON DELETE CASCADE,
    batch     integer NOT NULL,
    task_type text NOT NULL,
    fence     bigint NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    ids       text[] NOT NULL,                  -- task rows inserted, updated or deleted
    digests   bigint[] NOT NULL,                -- of each of them as the batch left it
    before    jsonb,                            -- what they were: null for inserted ones
    dropped   jsonb NOT NULL,                   -- [{id, reason}]: not touched
    undone_at timestamptz,
    kept      jsonb,                            -- [{id, reason}]: not undone
    PRIMARY KEY (run, batch)
);

REVOKE ALL ON ALL TABLES IN SCHEMA queue_insights FROM PUBLIC;
