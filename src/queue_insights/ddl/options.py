"""The three ways to make the backlog visible, and what each costs on this database."""

import time
from dataclasses import replace

import pandas as pd
import sqlalchemy as sa

from queue_insights.ddl.migration import apply, run, written
from queue_insights.ddl.trigger import Trigger
from queue_insights.errors import InputError
from queue_insights.queue import Queue
from queue_insights.schema import reflect
from queue_insights.sql import Query, unescaped
from queue_insights.sql.frames import query


def compare(queue: Queue, sample: int = 1000, ensure: int = 50) -> pd.DataFrame:
    """What each option costs: none, trigger, views, ensure (the hybrid, for the next *ensure*).

    Columns: option; stage_change_us, microseconds that one change of a track's stage takes the
    database; read_ms, milliseconds of a reading of how much waits at each step; rows_to_insert,
    once for the trigger (the backfill) and with every run for ensure; insert_ms, how long that
    takes; hidden_after, tracks that wait and still cannot be seen.

    Changes are measured on copies of at most *sample* tracks, tables made in a transaction that is
    rolled back: no lock is taken that anybody waits for, and no track is touched. Readings are
    measured on the tables themselves. Raises MigrationError for a missing privilege.
    """
    if sample < 1 or ensure < 0:
        raise InputError(f"sample {sample} and ensure {ensure}: expected at least 1 and 0")
    with queue.snapshot() as moment:
        hidden = int(queue.audit()["hidden"].sum())
        truth = query(queue.schema, moment.as_of, "backlog")
        reads = (Query(queue.schema.render("options_pending.sql")), truth)
        # Twice: what is read for the first time says little.
        rows, truths = ([_seconds(moment.connection, read) for _ in range(2)][1] for read in reads)
    plain, triggered, inserted = apply(
        queue, "trigger options", lambda connection: _measure(connection, queue, sample)
    )
    inserts = [0, hidden, 0, min(ensure, hidden)]
    frame = pd.DataFrame(
        {
            "option": ["none", "trigger", "views", "ensure"],
            "stage_change_us": [cost * 1e6 for cost in (plain, triggered, plain, plain)],
            "read_ms": [cost * 1e3 for cost in (rows, rows, truths, rows)],
            "rows_to_insert": inserts,
            "insert_ms": [rows * inserted * 1e3 for rows in inserts],
            "hidden_after": [hidden, 0, 0, hidden - inserts[-1]],
        }
    )
    return frame.astype({"option": "str"})


def _measure(connection: sa.Connection, queue: Queue, sample: int) -> tuple[float, float, float]:
    """Seconds: of a change of stage per track, without and with the trigger; of a row inserted."""
    schema = reflect(connection, queue.pipeline)
    tracks, tasks = schema.tracks, schema.tasks
    copy = replace(
        schema,
        tracks=replace(tracks, name="queue_insights_sample_tracks"),
        tasks=replace(tasks, name="queue_insights_sample_tasks"),
    )
    trigger = Trigger(copy)
    keys = sa.inspect(connection).get_foreign_keys(tasks.name, tasks.schema)
    refers = any(key["referred_table"] == tracks.name for key in keys)
    moves = [Query(copy.render("options_move.sql"), {"stage": s}) for s in trigger.stages]
    savepoint = connection.begin_nested()
    try:
        given = {"copy": copy, "sample": sample, "refers": refers}
        run(connection, written(schema, "options_copies.sql", **given))
        if not (count := moves[-1].rows(connection).rowcount):
            return 0.0, 0.0, 0.0
        _, plain = (_seconds(connection, *moves) for _ in range(2))
        inserted = _seconds(connection, Query(copy.render("options_insert.sql")))
        run(connection, f"TRUNCATE {unescaped(copy.tasks.table)}; {trigger.migration.up}")
        triggered = _seconds(connection, *moves)
        return plain / len(moves) / count, triggered / len(moves) / count, inserted / count
    finally:
        savepoint.rollback()


def _seconds(connection: sa.Connection, *queries: Query) -> float:
    """How long it takes to run them and to have their rows."""
    started = time.perf_counter()
    for each in queries:
        result = each.rows(connection)
        result.all() if result.returns_rows else None
    return time.perf_counter() - started
