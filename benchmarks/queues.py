"""What does backlog read of other people's queues, beside the best SQL by hand?

    python benchmarks/queues.py [--rows 1000000]

River's, Oban's and pg-boss' tables with the indexes that they come with, so many finished jobs and
a hundredth as many that are not. Read are pages (buffers): they do not depend on how busy the
machine is.
"""

import json
from collections.abc import Iterator

import psycopg

import dataset
import results
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue

RIVER = """
    CREATE TYPE river_job_state AS ENUM ('available', 'cancelled', 'completed', 'discarded',
        'pending', 'retryable', 'running', 'scheduled');
    CREATE TABLE river_job (id bigserial PRIMARY KEY, state river_job_state NOT NULL,
        attempt smallint NOT NULL DEFAULT 0, max_attempts smallint NOT NULL DEFAULT 25,
        attempted_at timestamptz, created_at timestamptz NOT NULL, finalized_at timestamptz,
        scheduled_at timestamptz NOT NULL, priority smallint NOT NULL DEFAULT 1,
        args jsonb NOT NULL DEFAULT '{}', errors jsonb[], kind text NOT NULL,
        queue text NOT NULL DEFAULT 'default');
    INSERT INTO river_job
        (state, attempt, attempted_at, created_at, finalized_at, scheduled_at, kind)
    SELECT state::river_job_state, attempt, at, at,
           CASE WHEN state IN ('completed', 'discarded') THEN at END, due, kind FROM story;
    CREATE INDEX ON river_job (kind);
    CREATE INDEX ON river_job (state, finalized_at) WHERE finalized_at IS NOT NULL;
    CREATE INDEX ON river_job (state, queue, priority, scheduled_at, id);
"""
OBAN = """
    CREATE TYPE oban_job_state AS ENUM ('available', 'scheduled', 'suspended', 'executing',
        'retryable', 'completed', 'discarded', 'cancelled');
    CREATE TABLE oban_jobs (id bigserial PRIMARY KEY, state oban_job_state NOT NULL,
        queue text NOT NULL DEFAULT 'default', worker text NOT NULL, args jsonb DEFAULT '{}',
        errors jsonb[] DEFAULT '{}', attempt int NOT NULL, max_attempts int NOT NULL DEFAULT 20,
        inserted_at timestamp NOT NULL, scheduled_at timestamp NOT NULL, priority int DEFAULT 0,
        attempted_at timestamp, completed_at timestamp, discarded_at timestamp,
        cancelled_at timestamp);
    INSERT INTO oban_jobs
        (state, worker, attempt, attempted_at, inserted_at, completed_at, scheduled_at)
    SELECT CASE state WHEN 'running' THEN 'executing' ELSE state END::oban_job_state, kind, attempt,
           at, at, CASE state WHEN 'completed' THEN at END, due FROM story;
    CREATE INDEX ON oban_jobs (state, queue, priority, scheduled_at, id);
"""
PGBOSS = """
    CREATE SCHEMA pgboss;
    CREATE TYPE pgboss.job_state AS ENUM ('created', 'retry', 'active', 'completed', 'cancelled',
        'failed');
    CREATE TABLE pgboss.job (id uuid NOT NULL DEFAULT gen_random_uuid(), name text NOT NULL,
        priority int NOT NULL DEFAULT 0, data jsonb, state pgboss.job_state NOT NULL,
        retry_limit int NOT NULL DEFAULT 2, retry_count int NOT NULL,
        start_after timestamptz NOT NULL, started_on timestamptz, created_on timestamptz NOT NULL,
        completed_on timestamptz, output jsonb,
        PRIMARY KEY (name, id)) PARTITION BY LIST (name);
    CREATE TABLE pgboss.job_common PARTITION OF pgboss.job DEFAULT;
    INSERT INTO pgboss.job
        (name, state, retry_count, start_after, started_on, created_on, completed_on)
    SELECT kind, CASE state WHEN 'available' THEN 'created' WHEN 'scheduled' THEN 'created'
                 WHEN 'retryable' THEN 'retry' WHEN 'running' THEN 'active'
                 WHEN 'discarded' THEN 'failed' ELSE state END::pgboss.job_state,
           attempt, due, at, at, CASE state WHEN 'completed' THEN at END FROM story;
    CREATE INDEX ON pgboss.job_common (name, start_after) INCLUDE (priority, created_on, id)
        WHERE state < 'active';
"""
STORY = """
    CREATE TEMP TABLE story AS
    SELECT 'completed' AS state, 1 AS attempt, now() - i * interval '2 s' AS at,
           now() - i * interval '2 s' AS due, 'kind ' || i %% 5 AS kind
    FROM generate_series(1, %(rows)s) i
    UNION ALL
    SELECT (ARRAY['available', 'scheduled', 'retryable', 'running', 'discarded'])[1 + i %% 5],
           i %% 3, now() - i * interval '1 s',
           now() - i * interval '1 s' + (i %% 2) * interval '1 day', 'kind ' || i %% 5
    FROM generate_series(1, %(rows)s / 100) i;
"""
# What somebody who knows the queue would write for the same counts.
BY_HAND = """
    SELECT {kind}, count(*), count(*) FILTER (WHERE state = '{ready}' AND {due} <= now()),
           count(*) FILTER (WHERE state = '{retry}' AND {due} <= now()),
           count(*) FILTER (WHERE state IN ('{ready}', '{retry}') AND {due} > now()),
           count(*) FILTER (WHERE state = '{running}' AND {started} > now() - interval '1 hour'),
           count(*) FILTER (WHERE state = '{dead}'), min(greatest({created}, {due}))
    FROM {table} WHERE state IN ({open}) GROUP BY 1
"""
SHAPES = {
    "river": (
        RIVER,
        {
            "table": "river_job",
            **{"kind": "kind", "ready": "available", "retry": "retryable", "running": "running"},
            **{"dead": "discarded", "due": "scheduled_at", "started": "attempted_at"},
            "created": "created_at",
            "open": "'available', 'cancelled', 'discarded', 'pending', 'retryable', 'running', "
            "'scheduled'",
        },
    ),
    "oban": (
        OBAN,
        {
            "table": "oban_jobs",
            **{
                "kind": "worker",
                "ready": "available",
                "retry": "retryable",
                "running": "executing",
            },
            **{"dead": "discarded", "due": "scheduled_at", "started": "attempted_at"},
            "created": "inserted_at",
            "open": "'available', 'scheduled', 'suspended', 'executing', 'retryable', 'discarded', "
            "'cancelled'",
        },
    ),
    "pgboss": (
        PGBOSS,
        {
            "table": "pgboss.job",
            **{"kind": "name", "ready": "created", "retry": "retry", "running": "active"},
            **{"dead": "failed", "due": "start_after", "started": "started_on"},
            "created": "created_on",
            "open": "'created', 'retry', 'active', 'cancelled', 'failed'",
        },
    ),
}


def pages(connection: psycopg.Connection, statement: str) -> int:
    """How many pages a statement reads, from memory or from disk."""
    (found,) = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}").fetchone()
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def compared(url: str, rows: int) -> Iterator[results.Result]:
    for name, (shape, words) in SHAPES.items():
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(STORY.replace("%(rows)s", str(rows)).replace("%%", "%"))
            connection.execute(shape)
            connection.execute("VACUUM ANALYZE")
            connection.execute("SET timezone = 'UTC'; SET jit = off")
            ours = Queue(Database(url), pipeline.load(name))._query("backlog").sql
            mine, hand = (pages(connection, s) for s in (ours, BY_HAND.format(**words)))
            connection.execute("DROP TABLE story")
        yield results.Result(
            f"backlog of {name}, {rows:,} finished and {rows // 100:,} open jobs",
            f"{mine:,} pages",
            f"{hand:,} pages by hand",
            mine / hand,
            1.1,
        )


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with dataset.databases(given.folder) as database:
        found = list(compared(database("a", 1000, to_change=True), given.rows))
    results.report(found, given.json)


if __name__ == "__main__":
    main()
