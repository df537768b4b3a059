"""The three ways to make the backlog visible, and what each costs on this database."""

import time
from dataclasses import dataclass, replace

import pandas as pd
import sqlalchemy as sa

from queue_insights import migration as migrations
from queue_insights import queries
from queue_insights.errors import InputError
from queue_insights.migration import name, table_name
from queue_insights.queue import Queue
from queue_insights.schema import Schema
from queue_insights.trigger_sql import Trigger

_LIKE = """
    CREATE TABLE {copy} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES
                         INCLUDING GENERATED INCLUDING IDENTITY INCLUDING STORAGE)
"""
_COLUMNS = sa.text("""
    SELECT attname::text FROM pg_attribute
    WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
""")
_HAS_FOREIGN_KEY = sa.text("""
    SELECT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f'
                   AND conrelid = to_regclass(:tasks) AND confrelid = to_regclass(:tracks))
""")


@dataclass
class _Costs:
    """Seconds: of a change of stage per track, without and with the trigger; of a row inserted."""

    plain: float
    triggered: float
    inserted: float


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
    costs = migrations.apply(
        queue.database, "trigger options", relations, lambda c: _measure(c, queue, sample)
    )
    next_rows = min(ensure, hidden)
    rows = [
        ("none", costs.plain, rows_read, 0, hidden),
        ("trigger", costs.triggered, rows_read, hidden, 0),
        ("views", costs.plain, truth_read, 0, 0),
        ("ensure", costs.plain, rows_read, next_rows, hidden - next_rows),
    ]
    frame = pd.DataFrame(
        [(o, c * 1e6, ms, n, n * costs.inserted * 1e3, left) for o, c, ms, n, left in rows],
        columns=[
            *("option", "stage_change_us", "read_ms"),
            *("rows_to_insert", "insert_ms", "hidden_after"),
        ],
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


def _measure(connection: sa.Connection, queue: Queue, sample: int) -> _Costs:
    schema = migrations.qualified(connection, queue.pipeline)
    savepoint = connection.begin_nested()
    try:
        copy, tracks = _copied(connection, schema, sample)
        if tracks == 0:
            return _Costs(0.0, 0.0, 0.0)
        _walk(connection, copy)
        plain = _walk(connection, copy)
        inserted = _insert(connection, copy)
        connection.execute(sa.delete(copy.tasks))
        migrations.run(connection, Trigger(copy).migration.up)
        triggered = _walk(connection, copy)
        changes = tracks * len(Trigger(copy).stages)
        return _Costs(plain / changes, triggered / changes, inserted / tracks)
    finally:
        savepoint.rollback()


def _copied(connection: sa.Connection, schema: Schema, sample: int) -> tuple[Schema, int]:
    """Tables like the two, the tracks' with a sample in it, and how many that are."""

    def like(table: sa.Table, title: str) -> sa.Table:
        copy = table.to_metadata(sa.MetaData(), name=f"queue_insights_sample_{title}")
        sql = _LIKE.format(copy=table_name(copy), table=table_name(table))
        migrations.run(connection, sql)
        return copy

    tracks, tasks = schema.tracks, schema.tasks
    copy = replace(schema, tracks=like(tracks, "tracks"), tasks=like(tasks, "tasks"))
    found = connection.scalars(_COLUMNS, {"table": table_name(tracks)}).all()
    columns = ", ".join(map(name, found))
    migrations.run(
        connection,
        f"INSERT INTO {table_name(copy.tracks)} ({columns}) OVERRIDING SYSTEM VALUE "  # noqa: S608
        f"SELECT {columns} FROM {table_name(tracks)} LIMIT {sample:d}",
    )
    both = {"tasks": table_name(tasks), "tracks": table_name(tracks)}
    if connection.scalar(_HAS_FOREIGN_KEY, both):
        migrations.run(
            connection,
            f"ALTER TABLE {table_name(copy.tasks)} "
            f"ADD FOREIGN KEY ({name(tasks.c.track_id.name)}) "
            f"REFERENCES {table_name(copy.tracks)} ({name(tracks.c.id.name)})",
        )
    count = sa.select(sa.func.count()).select_from(copy.tracks)
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
