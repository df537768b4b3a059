"""The three ways to make the backlog visible, and what each costs on this database."""

from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import sqlalchemy as sa

from queue_insights.ddl import migration
from queue_insights.ddl.trigger import Trigger
from queue_insights.errors import InputError
from queue_insights.queue import Queue
from queue_insights.schema import reflect_stages
from queue_insights.sql import Query
from queue_insights.sql.frames import query


def compare(queue: Queue, sample: int = 1000, ensure: int = 50) -> pd.DataFrame:
    """What each option costs: none, trigger, views, ensure (the hybrid, for the next *ensure*).

    Columns: option; stage_change_us, microseconds that one change of a track's stage takes; read_ms
    of how much waits at each step; rows_to_insert, once for the trigger (the backfill) and with
    every run for ensure; insert_ms for those; hidden_after, tracks that still cannot be seen.

    Changes are measured on copies of at most *sample* tracks, without foreign keys, in a
    transaction that is rolled back. Raises MigrationError for a missing privilege.
    """
    if sample < 1 or ensure < 0:
        raise InputError(f"sample {sample} and ensure {ensure}: expected at least 1 and 0")
    with queue.snapshot() as moment:
        hidden = int(queue.audit()["hidden"].sum())
        truth = query(queue.schema, moment.as_of, "backlog")
        reads = [Query(queue.schema.render("options.sql", part="pending")), truth]
        # Twice: what is read for the first time says little.
        times = [_measured(moment.connection, read, "off") for read in reads * 2]
        rows, truths = (each["Execution Time"] for each in times[2:])
    work = partial(_changes, queue=queue, sample=sample)
    plain, inserted = migration.apply(queue, "trigger options", work)
    frame = pd.DataFrame({"option": ["none", "trigger", "views", "ensure"]}, dtype="str")
    frame["stage_change_us"] = [plain * 1e3, (plain + inserted) * 1e3, plain * 1e3, plain * 1e3]
    frame["read_ms"] = [rows, rows, truths, rows]
    frame["rows_to_insert"] = [0, hidden, 0, min(ensure, hidden)]
    frame["insert_ms"] = frame["rows_to_insert"] * inserted
    frame["hidden_after"] = [hidden, 0, 0, max(hidden - ensure, 0)]
    return frame


def _changes(connection: sa.Connection, queue: Queue, sample: int) -> tuple[float, float]:
    """Milliseconds that a change of stage takes, and what the trigger adds to it, measured on
    copies of the tables, in which every track comes to each stage."""
    schema = reflect_stages(connection, queue.stages("trigger"))
    tracks = replace(schema.tracks, name="queue_insights_sample_tracks")
    tasks = replace(schema.tasks, name="queue_insights_sample_tasks")
    trigger = Trigger(replace(schema, tracks=tracks, tasks=tasks))
    given = {"part": "copies", "copy": trigger.schema, "sample": sample}
    move = trigger.schema.render("options.sql", part="move")
    savepoint = connection.begin_nested()
    try:
        migration.run(connection, migration.written(schema, "options.sql", **given))
        migration.run(connection, trigger.migration.up)
        found = [_measured(connection, Query(move, {"stage": s})) for s in trigger.stages]
    finally:
        savepoint.rollback()
    if not (changed := sum(each["Plan"]["Plans"][0]["Actual Rows"] for each in found)):
        return 0.0, 0.0
    took = sum(each["Execution Time"] for each in found)
    fired = [each for statement in found for each in statement["Triggers"]]
    added = sum(each["Time"] for each in fired if each["Trigger Name"].startswith("queue_insights"))
    return (took - added) / changed, added / changed


def _measured(connection: sa.Connection, query: Query, timing: str = "on") -> Any:
    """What EXPLAIN ANALYZE says of a statement; *timing* its parts takes time by itself."""
    analyze = f"EXPLAIN (ANALYZE, TIMING {timing}, FORMAT JSON) {query.text}"
    return replace(query, text=analyze).rows(connection).scalar_one()[0]
