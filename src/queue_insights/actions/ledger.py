"""The ledger: who ran what, how far it got, and who may go on with it."""

import os
import platform
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from importlib.resources import files
from typing import Any

import pandas as pd
import sqlalchemy as sa

from queue_insights import queries
from queue_insights.actions.definitions import Action
from queue_insights.database import WRITE_URL, Database
from queue_insights.errors import DatabaseError, RunError, Stopped
from queue_insights.schema import Schema, quoted

SCHEMA = "queue_insights"
PATIENCE = 12  # tries of about a lock_timeout each; a frozen holder's session ends in 2 s

_metadata = sa.MetaData(schema=SCHEMA)
RUNS = sa.Table(
    "runs",
    _metadata,
    sa.Column("run", sa.BigInteger),
    *(sa.Column(name, sa.Text) for name in ("action", "pipeline", "state")),
    sa.Column("undoing", sa.Boolean),
    *(sa.Column(n, sa.BigInteger) for n in ("rows_planned", "rows_done", "rows_dropped")),
    *(sa.Column(n, sa.BigInteger) for n in ("came_after", "rows_undone", "rows_kept")),
    *(
        sa.Column(n, sa.DateTime(timezone=True))
        for n in ("started_at", "last_batch_at", "ended_at")
    ),
    *(sa.Column(name, sa.Text) for name in ("role", "host")),
    sa.Column("pid", sa.Integer),
    *(sa.Column(name, sa.JSON) for name in ("parameters", "planned")),
    *(sa.Column(name, sa.Text) for name in ("fingerprint", "variant", "error")),
    sa.Column("fence", sa.BigInteger),
)
TARGETS = sa.Table(
    "targets",
    _metadata,
    sa.Column("run", sa.BigInteger),
    sa.Column("chunk", sa.BigInteger),
    sa.Column("task_type", sa.Text),
    sa.Column("pass", sa.Integer, key="turn"),
    sa.Column("ids", sa.ARRAY(sa.Text)),
    sa.Column("arrived", sa.ARRAY(sa.DateTime(timezone=True))),
)
BATCHES = sa.Table(
    "batches",
    _metadata,
    sa.Column("run", sa.BigInteger),
    sa.Column("batch", sa.Integer),
    sa.Column("task_type", sa.Text),
    sa.Column("fence", sa.BigInteger),
    sa.Column("ids", sa.ARRAY(sa.Text)),
    sa.Column("digests", sa.ARRAY(sa.BigInteger)),
    sa.Column("before", sa.dialects.postgresql.JSONB),
    sa.Column("dropped", sa.dialects.postgresql.JSONB),
    sa.Column("undone_at", sa.DateTime(timezone=True)),
    sa.Column("kept", sa.dialects.postgresql.JSONB),
)

# A frozen process must not keep its locks: the server ends its transaction. Compiling (jit) a batch
# takes longer than it saves.
_SETTINGS = sa.text("""
    SELECT set_config('lock_timeout', :lock, true),
           set_config('statement_timeout', :statement, true),
           set_config('idle_in_transaction_session_timeout', :idle, true),
           set_config('jit', 'off', true)
""")

TABLES = (RUNS.name, TARGETS.name, BATCHES.name)
# From the catalog: to_regclass would fail for a role that may not look into the schema.
_PRESENT = sa.text("""
    SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'queue_insights' AND c.relname = ANY (:names)
""")
# Where a column's default takes its numbers, and what is behind an identity.
_SEQUENCES = sa.text("""
    SELECT format('%I.%I', n.nspname, s.relname)
    FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
    WHERE s.relkind = 'S' AND s.oid IN (
        SELECT d.refobjid FROM pg_attrdef a JOIN pg_depend d
          ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
        WHERE a.adrelid = to_regclass(:table)
        UNION ALL SELECT to_regclass(pg_get_serial_sequence(:table, :column)))
    ORDER BY 1
""")


def ddl() -> str:
    """The ledger's DDL, as a DBA may run it first."""
    return files(__package__).joinpath("ledger.sql").read_text(encoding="utf-8")


def begin(
    connection: sa.Connection, lock: str = "500ms", statement: str = "30s", idle: str = "2s"
) -> None:
    """Bound what this transaction may wait for or hold."""
    connection.execute(_SETTINGS, {"lock": lock, "statement": statement, "idle": idle})


def exists(connection: sa.Connection) -> bool:
    """Whether this database has a ledger."""
    return bool(present(connection, [RUNS.name]))


def create(connection: sa.Connection) -> None:
    """Create the ledger if there is none; two who do so at the same time get one."""
    if not exists(connection):
        lock = "SELECT pg_advisory_xact_lock(hashtext('queue_insights.ledger'))"
        connection.execute(sa.text(lock))
        if not exists(connection):
            connection.exec_driver_sql(ddl())


def all_runs() -> queries.Query:
    """All runs, newest first."""
    columns = [
        column for column in RUNS.c if column.name not in ("fence", "fingerprint", "variant")
    ]
    return sa.select(*columns).order_by(RUNS.c.run.desc())


def runs(connection: sa.Connection) -> pd.DataFrame:
    """All runs as a frame (an empty one where there is no ledger)."""
    query = all_runs()
    if not exists(connection):
        nulls = (sa.cast(sa.null(), c.type).label(c.name) for c in query.selected_columns)
        query = sa.select(*nulls).where(sa.false())
    return queries.fetch(connection, query)


def get(connection: sa.Connection, run: int) -> Mapping[str, Any]:
    """One run's row. Raises RunError if there is none."""
    found = None
    if exists(connection):
        found = connection.execute(sa.select(RUNS).where(RUNS.c.run == run)).mappings().first()
    if found is None:
        raise RunError(f"there is no run {run} in this database; see `queue-insights runs`")
    return dict(found)


def me() -> dict[str, Any]:
    """Who this process is, for the run's row."""
    return {"host": platform.node(), "pid": os.getpid()}


def take_over(database: Database, run: int, undoing: bool) -> int:
    """Make this process the only one that may go on with *run*; returns its fencing number.

    Whoever had it before finds its number outdated in its next batch, dead, alive or frozen.
    """
    statement = (
        sa.update(RUNS)
        .where(RUNS.c.run == run)
        .values(state="running", undoing=undoing, fence=RUNS.c.fence + 1, error=None)
        .values(ended_at=None, role=sa.func.session_user(), **me())
        .returning(RUNS.c.fence)
    )
    return int(_locking(database, statement))


def end(database: Database, run: int, fence: int, state: str, error: str | None = None) -> None:
    """Record how this process's part in *run* ended, unless somebody has taken it over."""
    statement = (
        sa.update(RUNS)
        .where(RUNS.c.run == run, RUNS.c.fence == fence)
        .values(state=state, error=error, ended_at=sa.func.clock_timestamp())
        .returning(RUNS.c.run)
    )
    _locking(database, statement)


def stop(database: Database, run: int) -> None:
    """End *run* after the batch in hand, whether its process lives or not. It can be resumed.

    Raises RunError for a run that is not running.
    """
    with database.read(primary=True) as moment:
        found = get(moment.connection, run)
    statement = (
        sa.update(RUNS)
        .where(RUNS.c.run == run, RUNS.c.state == "running")
        .values(state="stopped", fence=RUNS.c.fence + 1, ended_at=sa.func.clock_timestamp())
        .returning(RUNS.c.run)
    )
    if _locking(database, statement) is None:
        raise RunError(f"run {run} is {found['state']}: there is nothing to stop")


def prune(database: Database, age: timedelta) -> int:
    """Drop the entries of runs that ended longer than *age* ago; returns how many. They can no
    longer be undone."""
    statement = (
        sa.delete(RUNS)
        .where(RUNS.c.state != "running", RUNS.c.ended_at < sa.func.now() - age)
        .returning(RUNS.c.run)
    )
    with database.write() as connection:
        begin(connection)
        return len(connection.execute(statement).all()) if exists(connection) else 0


def _locking(database: Database, statement: sa.Update) -> Any:
    """Run *statement*, waiting a bounded time for whoever holds the run's row."""
    for attempt in range(PATIENCE):
        try:
            with database.write() as connection:
                begin(connection)
                return connection.scalar(statement)
        except DatabaseError as error:
            if error.sqlstate != "55P03" or attempt == PATIENCE - 1:
                raise
            time.sleep(random.uniform(0.05, 0.2))
    return None


def describe(row: Mapping[str, Any]) -> str:
    """Who has a run, in a few words: ``run 3 (host, pid 12, last batch 12:00:01 UTC)``."""
    last = row["last_batch_at"]
    when = f"last batch {last.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if last else "no batch yet"
    return f"run {row['run']} ({row['host']}, pid {row['pid']}, {when})"


def hold(connection: sa.Connection, run: int, fence: int) -> None:
    """Lock *run*'s row for this transaction, if this process still has it.

    Raises Stopped if somebody asked it to end, RunError if somebody else has it or it is gone.
    """
    row = (
        connection.execute(sa.select(RUNS).where(RUNS.c.run == run).with_for_update(key_share=True))
        .mappings()
        .first()
    )
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


def listed(connection: sa.Connection, run: int, column: str) -> pd.DataFrame:
    """The entries of a run's batches in *column* (dropped or kept): id, task_type, reason."""
    entry = sa.func.jsonb_array_elements(BATCHES.c[column]).table_valued(
        sa.column("value", sa.dialects.postgresql.JSONB), name="entry"
    )
    query = (
        sa.select(
            entry.c.value["id"].astext.label("id"),
            BATCHES.c.task_type,
            entry.c.value["reason"].astext.label("reason"),
        )
        .select_from(sa.join(BATCHES, entry, sa.true()))
        .where(BATCHES.c.run == run)
        .order_by(BATCHES.c.batch)
    )
    return queries.fetch(connection, query)


# What reads, and each kind of action and its undo, do to the table of tasks; UPDATE is also what
# locking a row takes.
_WRITE = ("SELECT", "INSERT", "UPDATE", "DELETE")
_ON_TASKS = {
    **{"read": ("SELECT",), "update": ("SELECT", "UPDATE")},
    **{"insert": _WRITE, "delete": _WRITE},
}


def present(connection: sa.Connection, names: Sequence[str] = TABLES) -> list[str]:
    """Those of *names* that are tables or views of ours in this database."""
    found = set(connection.scalars(_PRESENT, {"names": list(names)}))
    return [name for name in names if name in found]


def sequences(connection: sa.Connection, schema: Schema) -> Sequence[str]:
    """What new task rows take their numbers from."""
    column = {"table": quoted(schema.tasks), "column": schema.tasks.c.id.name}
    return connection.scalars(_SEQUENCES, column).all()


def lacking(connection: sa.Connection, schema: Schema, kind: str) -> dict[str, list[str]]:
    """What this role lacks to "read", or for the actions of a *kind* and their undo ("insert" takes
    most): privileges, by what they are on, as GRANT names both."""

    def lacks(on: str, name: str, *privileges: str) -> list[str]:
        test = getattr(sa.func, f"has_{on}_privilege")
        return [p for p in privileges if not connection.scalar(sa.select(test(name, p)))]

    tracks, tasks = quoted(schema.tracks), quoted(schema.tasks)
    found = {
        tracks: lacks("table", tracks, "SELECT"),
        tasks: lacks("table", tasks, *_ON_TASKS[kind]),
    }
    if kind != "read":
        if lacks("any_column", tracks, "UPDATE"):  # which it takes to lock a track
            found[tracks].append(f"UPDATE ({quoted(schema.tracks.c.updated_at.name)})")
        for sequence in sequences(connection, schema) if kind == "insert" else ():
            found[f"SEQUENCE {sequence}"] = lacks("sequence", sequence, "USAGE")
        if not (tables := [f"{SCHEMA}.{table}" for table in present(connection)]):
            database = str(connection.scalar(sa.text("SELECT current_database()")))
            found[f"DATABASE {quoted(database)}"] = lacks("database", database, "CREATE")
        elif no_usage := lacks("schema", SCHEMA, "USAGE"):
            found[f"SCHEMA {SCHEMA}"] = no_usage
        else:
            found |= {table: lacks("table", table, *_WRITE) for table in tables}
    return {on: privileges for on, privileges in found.items() if privileges}


def require(connection: sa.Connection, schema: Schema, action: Action) -> None:
    """Refuse before anything is written what this role could not finish. Raises RunError."""
    for on, (privilege, *_) in lacking(connection, schema, action.kind).items():
        if on.startswith("DATABASE "):
            raise RunError(
                f"{action.name}: nothing was done: there is no ledger yet and this role may not "
                "create the schema queue_insights; a DBA can run the output of "
                "`queue-insights runs --ddl`"
            )
        raise RunError(
            f"{action.name}: nothing was done: this role lacks {privilege.split()[0]} on {on}; ask "
            f"its owner for GRANT {privilege} ON {on}, or use another role in {WRITE_URL}"
        )
