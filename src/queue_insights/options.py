"""The three ways to make the backlog visible, and what each costs on this database."""

import time
from dataclasses import replace

import pandas as pd
import sqlalchemy as sa

from queue_insights import migration as migrations
from queue_insights import queries
from queue_insights.errors import InputError
from queue_insights.queue import Queue
from queue_insights.schema import Schema, quoted
from queue_insights.trigger_sql import Trigger


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
        pending, truth = _pending(queue.schema), queries.backlog(queue.schema)
        rows_read, truth_read = (_milliseconds(moment.connection, q) for q in (pending, truth))
    relations = [queue.pipeline.tracks.table]
    plain, triggered, inserted = migrations.apply(
        queue.database, "trigger options", relations, lambda c: _measure(c, queue, sample)
    )
    inserts = [0, hidden, 0, min(ensure, hidden)]
    frame = pd.DataFrame(
        {
            "option": ["none", "trigger", "views", "ensure"],
            "stage_change_us": [cost * 1e6 for cost in (plain, triggered, plain, plain)],
            "read_ms": [rows_read, rows_read, truth_read, rows_read],
            "rows_to_insert": inserts,
            "insert_ms": [rows * inserted * 1e3 for rows in inserts],
            "hidden_after": [hidden, 0, 0, hidden - inserts[-1]],
        }
    )
    return frame.astype({"option": "str"})


def _pending(schema: Schema) -> queries.Query:
    """What a dashboard reads: pending rows by task."""
    row = schema.tasks.alias("task")
    pending = sa.and_(schema.ours(row), row.c.status == "pending")
    query = sa.select(row.c.task_type, sa.func.count().label("count")).where(pending)
    return query.group_by(row.c.task_type)


def _milliseconds(connection: sa.Connection, query: queries.Query) -> float:
    connection.execute(query).all()  # what is read for the first time says little
    started = time.perf_counter()
    connection.execute(query).all()
    return (time.perf_counter() - started) * 1e3


def _measure(connection: sa.Connection, queue: Queue, sample: int) -> tuple[float, float, float]:
    """Seconds: of a change of stage per track, without and with the trigger; of a row inserted."""
    schema = migrations.qualified(connection, queue.pipeline)
    savepoint = connection.begin_nested()
    try:
        copy, tracks = _copied(connection, schema, sample)
        if tracks == 0:
            return 0.0, 0.0, 0.0
        _walk(connection, copy)
        plain = _walk(connection, copy)
        inserted = _insert(connection, copy)
        connection.execute(sa.delete(copy.tasks))
        trigger = Trigger(copy)
        migrations.run(connection, trigger.migration.up)
        triggered = _walk(connection, copy)
        changes = tracks * len(trigger.stages)
        return plain / changes, triggered / changes, inserted / tracks
    finally:
        savepoint.rollback()


def _copied(connection: sa.Connection, schema: Schema, sample: int) -> tuple[Schema, int]:
    """Tables like the two, the tracks' with a sample in it, and how many that are."""

    def like(table: sa.Table, title: str, but: str = "") -> sa.Table:
        copy = table.to_metadata(sa.MetaData(), name=f"queue_insights_sample_{title}")
        sql = f"CREATE TABLE {quoted(copy)} (LIKE {quoted(table)} INCLUDING ALL {but})"
        migrations.run(connection, sql)
        return copy

    tracks, tasks = schema.tracks, schema.tasks
    sampled = like(tracks, "tracks", "EXCLUDING GENERATED")  # so that all of a row can be inserted
    copy = replace(schema, tracks=sampled, tasks=like(tasks, "tasks"))
    migrations.run(
        connection,
        f"INSERT INTO {quoted(sampled)} OVERRIDING SYSTEM VALUE "  # noqa: S608
        f"SELECT * FROM {quoted(tracks)} LIMIT {sample:d}",
    )
    keys = sa.inspect(connection).get_foreign_keys(tasks.name, tasks.schema)
    if any(key["referred_table"] == tracks.name for key in keys):
        migrations.run(
            connection,
            f"ALTER TABLE {quoted(copy.tasks)} "
            f"ADD FOREIGN KEY ({quoted(tasks.c.track_id.name)}) "
            f"REFERENCES {quoted(sampled)} ({quoted(tracks.c.id.name)})",
        )
    count = sa.select(sa.func.count()).select_from(sampled)
    return copy, connection.scalar(count) or 0


def _walk(connection: sa.Connection, copy: Schema) -> float:
    """Seconds that it takes to move all tracks through all stages."""
    started = time.perf_counter()
    for stage in Trigger(copy).stages:
        connection.execute(sa.update(copy.tracks).values({copy.tracks.c.stage: stage}))
    return time.perf_counter() - started


def _insert(connection: sa.Connection, copy: Schema) -> float:
    """Seconds that it takes to insert a row for each track, as a backfill does."""
    step, id = copy.pipeline.steps[0], copy.tracks.c.id
    values = copy.naming(id, step.task) | {"status": sa.literal("pending")}
    started = time.perf_counter()
    connection.execute(sa.insert(copy.tasks).from_select(list(values), sa.select(*values.values())))
    return time.perf_counter() - started
