"""The ledger: who ran what, how far it got, and who may go on with it."""

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from queue_insights.actions.statements import named
from queue_insights.database import Database
from queue_insights.errors import DatabaseError, RunError, Stopped
from queue_insights.sql import Query
from queue_insights.sql.frames import fetch

TABLES = ("runs", "targets", "batches")
PATIENCE = "8s"  # for who has a run: a batch ends sooner, and a frozen one's session in 2 s


def ddl() -> str:
    """The ledger's DDL, as a DBA may run it first."""
    return (Path(__file__).parent / "sql" / "ledger.sql").read_text(encoding="utf-8")


def ask(connection: sa.Connection, name: str, **values: Any) -> sa.CursorResult[Any]:
    """Run one of the ledger's statements."""
    return Query(named(name), values).rows(connection)


def change(database: Database, name: str, run: int, **values: Any) -> Any:
    """Run a statement that changes *run*'s row, in a transaction of its own. What it returns is
    None where the statement's conditions do not hold."""
    with database.write(lock=PATIENCE) as connection:
        return ask(connection, name, run=run, **values).scalar()


def exists(connection: sa.Connection) -> bool:
    """Whether this database has a ledger."""
    return bool(ask(connection, "exists").scalar_one())


def create(connection: sa.Connection) -> None:
    """Create the ledger if there is none; two who do so at the same time get one."""
    if not exists(connection):
        ask(connection, "alone")
        if not exists(connection):
            connection.exec_driver_sql(ddl())


def runs(connection: sa.Connection) -> pd.DataFrame:
    """All runs as a frame, newest first (an empty one where there is no ledger)."""
    return fetch(connection, Query(named("all_runs" if exists(connection) else "no_runs")))


def get(connection: sa.Connection, run: int) -> dict[str, Any]:
    """One run's row. Raises RunError if there is none."""
    found = ask(connection, "get", run=run).mappings().first() if exists(connection) else None
    if found is None:
        raise RunError(f"there is no run {run} in this database; see `queue-insights runs`")
    return dict(found)


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
        f"{describe(row)}; nothing more was changed here"
    )


@contextlib.contextmanager
def alone(database: Database, pipeline: str, action: str) -> Iterator[None]:
    """Say who has the run that stands in the way of beginning or taking over one."""
    try:
        yield
    except DatabaseError as error:
        if "runs_one_unfinished" not in str(error):
            raise
        with database.read(primary=True) as moment:
            found = ask(moment.connection, "unfinished", pipeline=pipeline, action=action)
            row = found.mappings().first()
        if row is None:
            raise RunError(f"another {action} has just ended: run the command again") from None
        raise RunError(
            f"{action}: nothing was done: {describe(row)} is unfinished; go on with it by "
            f"`queue-insights resume {row['run']}`, or end it by `queue-insights stop {row['run']}`"
        ) from None


def describe(row: Mapping[Any, Any]) -> str:
    """Who has a run, in a few words: ``run 3 (host, pid 12, last batch 12:00:01 UTC)``."""
    last = row["last_batch_at"]
    when = f"last batch {last.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if last else "no batch yet"
    return f"run {row['run']} ({row['host']}, pid {row['pid']}, {when})"


def this_process() -> dict[str, Any]:
    """Who this process is, for the run's row."""
    return {"host": platform.node(), "pid": os.getpid()}
