"""The ledger: who ran what, how far it got, and who may go on with it."""

import json
import os
import platform
import random
import time
from collections.abc import Mapping
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from queue_insights.actions.definitions import Action, Parameters
from queue_insights.actions.statements import named
from queue_insights.database import Database, retried
from queue_insights.errors import RunError, Stopped
from queue_insights.schema import Schema
from queue_insights.sql import Query
from queue_insights.sql.frames import fetch

TABLES = ("runs", "targets", "batches")
PATIENCE = 12  # tries of about a lock_timeout each; a frozen holder's session ends in 2 s


def ddl() -> str:
    """The ledger's DDL, as a DBA may run it first."""
    return (Path(__file__).parent / "sql" / "ledger.sql").read_text(encoding="utf-8")


def ask(connection: sa.Connection, name: str, **values: Any) -> sa.CursorResult[Any]:
    """Run one of the ledger's statements."""
    return Query(named(name), values).rows(connection)


def exists(connection: sa.Connection) -> bool:
    """Whether this database has a ledger."""
    return bool(ask(connection, "exists").scalar_one())


def create(connection: sa.Connection) -> None:
    """Create the ledger if there is none; two who do so at the same time get one."""
    if not exists(connection):
        lock = "SELECT pg_advisory_xact_lock(hashtext('queue_insights.ledger'))"
        connection.execute(sa.text(lock))
        if not exists(connection):
            connection.exec_driver_sql(ddl())


def begin(connection: sa.Connection, schema: Schema, action: Action, given: Parameters) -> int:
    """Enter a new run, whose targets are still to be listed; returns its number."""
    about = {
        **{"pipeline": schema.pipeline.name, "fingerprint": schema.pipeline.fingerprint},
        **{"variant": schema.variant, "action": action.name},
    }
    return int(
        ask(
            connection, "begin", **about, **_me(), parameters=json.dumps(given.as_json())
        ).scalar_one()
    )


def runs(connection: sa.Connection) -> pd.DataFrame:
    """All runs as a frame, newest first (an empty one where there is no ledger)."""
    return fetch(connection, Query(named("all_runs" if exists(connection) else "no_runs")))


def get(connection: sa.Connection, run: int) -> dict[str, Any]:
    """One run's row. Raises RunError if there is none."""
    found = ask(connection, "get", run=run).mappings().first() if exists(connection) else None
    if found is None:
        raise RunError(f"there is no run {run} in this database; see `queue-insights runs`")
    return dict(found)


def listed(connection: sa.Connection, run: int, column: str) -> pd.DataFrame:
    """The entries of a run's batches in *column* (dropped or kept): id, task_type, reason."""
    return fetch(connection, Query(named(column), {"run": run}))


def take_over(database: Database, run: int, undoing: bool) -> int:
    """Make this process the only one that may go on with *run*; returns its fencing number.

    Whoever had it before finds its number outdated in its next batch, dead, alive or frozen.
    """
    return int(_locking(database, "take_over", run=run, undoing=undoing, **_me()))


def end(database: Database, run: int, fence: int, state: str, error: str | None = None) -> None:
    """Record how this process's part in *run* ended, unless somebody has taken it over."""
    _locking(database, "end", run=run, fence=fence, state=state, error=error)


def stop(database: Database, run: int) -> None:
    """End *run* after the batch in hand, whether its process lives or not. It can be resumed.

    Raises RunError for a run that is not running.
    """
    with database.read(primary=True) as moment:
        found = get(moment.connection, run)
    if _locking(database, "stop", run=run) is None:
        raise RunError(f"run {run} is {found['state']}: there is nothing to stop")


def drop(database: Database, age: timedelta) -> int:
    """Drop the entries of runs that ended longer than *age* ago; returns how many. They can no
    longer be undone."""
    with database.write() as connection:
        return len(ask(connection, "drop", age=age).all()) if exists(connection) else 0


def hold(connection: sa.Connection, run: int, fence: int) -> None:
    """Lock *run*'s row for this transaction, if this process still has it.

    Raises Stopped if somebody asked it to end, RunError if somebody else has it or it is gone.
    """
    row = ask(connection, "hold", run=run).mappings().first()
    if row is None:
        raise RunError(f"run {run} is gone from the ledger: nothing more was changed")
    if row["fence"] == fence and row["state"] == "running":
        return
    if row["state"] == "stopped":
        raise Stopped(f"run {run} was stopped; go on with it by `queue-insights resume {run}`")
    raise RunError(
        f"this process no longer has the run, which is {row['state']}: it was taken over as "
        f"{describe(dict(row))}; nothing more was changed here"
    )


def describe(row: Mapping[str, Any]) -> str:
    """Who has a run, in a few words: ``run 3 (host, pid 12, last batch 12:00:01 UTC)``."""
    last = row["last_batch_at"]
    when = f"last batch {last.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if last else "no batch yet"
    return f"run {row['run']} ({row['host']}, pid {row['pid']}, {when})"


def _me() -> dict[str, Any]:
    """Who this process is, for the run's row."""
    return {"host": platform.node(), "pid": os.getpid()}


def _locking(database: Database, name: str, **values: Any) -> Any:
    """Run a statement that locks the run's row, waiting a bounded time for whoever holds it."""

    def work() -> Any:
        with database.write() as connection:
            return ask(connection, name, **values).scalar()

    def between(attempt: int) -> None:
        time.sleep(random.uniform(0.05, 0.2))

    return retried(work, ("55P03",), PATIENCE, between)
