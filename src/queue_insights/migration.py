"""What trigger and views share: DDL with a way back, applied without holding a live queue up."""

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa

from queue_insights import formats, queries
from queue_insights.database import WRITE_URL, Database
from queue_insights.errors import DatabaseError, InputError, QueueInsightsError
from queue_insights.pipeline import Pipeline
from queue_insights.schema import Schema, quoted, reflect

LOCK_TIMEOUT = 0.5  # seconds; whoever writes to the table queues up behind a lock that waits
PATIENCE = 20.0  # seconds of tries, before the blocker is named and nothing has been done

Result = TypeVar("Result")

# A frozen installer must not keep its locks: the server ends its transaction.
_SETTINGS = sa.text("""
    SELECT set_config('lock_timeout', :milliseconds, true),
           set_config('statement_timeout', '60s', true),
           set_config('idle_in_transaction_session_timeout', '5s', true)
""")
_ONE_AT_A_TIME = sa.text("SELECT pg_advisory_xact_lock(hashtext('queue_insights.migration'))")
SCHEMA_OF = sa.text("""
    SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(:name)
""")
# Who holds a lock that a change of the relations waits for, or that keeps everybody from tables
# that are read or written along with it; a prepared transaction has no pid.
_BLOCKERS = sa.text("""
    SELECT l.pid, nullif(a.application_name, '') AS application, a.backend_type, a.state,
           extract(epoch FROM clock_timestamp() - a.query_start)::float8 AS seconds,
           array_agg(DISTINCT l.relation::regclass::text) AS relations
    FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.relation IN (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)
           AND (:readers OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
           OR l.relation IN (SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS name)
           AND l.mode IN ('ExclusiveLock', 'AccessExclusiveLock'))
    GROUP BY l.pid, a.application_name, a.backend_type, a.state, a.query_start
    ORDER BY a.query_start NULLS LAST
""")


class MigrationError(QueueInsightsError):
    """DDL that was not applied, or not undone: nothing of it was left behind."""


@dataclass(frozen=True)
class Migration:
    """Statements, and those that undo them; ``about`` is what a DBA should know first."""

    about: str
    up: str
    down: str

    def text(self) -> str:
        """The whole as a file for psql or any migration tool. Running it goes up; its last lines,
        which are comments, are the way down."""
        about = "\n".join(f"-- {line}".rstrip() for line in self.about.splitlines())
        timeout = f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT * 1000:.0f}ms';"
        down = re.sub(r"^|(?<=[\n\r])", "--down ", self.down)  # wherever a comment would end
        return (
            f"{about}\n\nBEGIN;\n{timeout}\n\n{self.up}\n\nCOMMIT;\n\n"
            "-- The way down: sed -n 's/^--down //p' THIS_FILE | psql\n"
            f"--down BEGIN;\n--down {timeout}\n{down}\n--down COMMIT;\n"
        )


@dataclass(frozen=True)
class Label:
    """What an object was made from; kept in its comment, for verify."""

    pipeline: str
    fingerprint: str
    variant: str
    sql: str

    @classmethod
    def of(cls, schema: Schema, sql: str) -> "Label":
        """The label of an object that *sql* makes."""
        digest = hashlib.sha256(sql.encode()).hexdigest()[:12]
        return cls(schema.pipeline.name, schema.pipeline.fingerprint, schema.variant, digest)

    @classmethod
    def read(cls, comment: str | None) -> "Label | None":
        """The label in an object's comment, or None for a comment that is not ours."""
        start, found = "queue-insights ", comment or ""
        try:
            return cls(**json.loads(found.removeprefix(start))) if start in found else None
        except (ValueError, TypeError):
            return None

    def comment(self, on: str) -> str:
        """The statement that puts this label *on* an object."""
        text = sa.literal(f"queue-insights {json.dumps(asdict(self))}")
        return f"COMMENT ON {on} IS {queries.compile_sql(text)};"

    def differs(self, found: "Label | None") -> str | None:
        """Why an object labelled *found* is not the one this label stands for; None if it is."""
        if found is None:
            return "was not made by queue-insights, or has lost its comment"
        if found.sql == self.sql:
            return None
        if found.variant != self.variant:
            return (
                f"was made for variant {found.variant.upper()}, and the task table is variant "
                f"{self.variant.upper()} by now"
            )
        if found.pipeline != self.pipeline:
            return f"was made for pipeline {found.pipeline!r}"
        if found.fingerprint != self.fingerprint:
            return f"was made from an earlier pipeline file (fingerprint {found.fingerprint})"
        return "was made by another version of queue-insights, or for other tables"


def about(template: str, schema: Schema, **facts: str) -> str:
    """*template* filled with what is made for *schema* and from what, and with other *facts*."""
    pipeline = schema.pipeline
    facts |= {
        "pipeline": f"{pipeline.name} ({pipeline.fingerprint})",
        "variant": schema.variant.upper(),
        "tracks": quoted(schema.tracks),
        "tasks": quoted(schema.tasks),
    }
    return template.format(**{key: formats.visible(text, 200) for key, text in facts.items()})


def qualified(connection: sa.Connection, pipeline: Pipeline) -> Schema:
    """The tables as they are now on this connection, each with its schema named: what is made from
    them means the same under any search_path. Raises InputError as ``reflect``."""
    found = reflect(connection, pipeline)

    def named(table: sa.Table) -> sa.Table:
        schema = connection.scalar(SCHEMA_OF, {"name": quoted(table)})
        return table.to_metadata(sa.MetaData(), schema=schema)

    dashboards = {role: named(view) for role, view in found.dashboards.items()}
    tracks, tasks = named(found.tracks), named(found.tasks)
    return replace(found, tracks=tracks, tasks=tasks, dashboards=dashboards)


def run(connection: sa.Connection, statements: str) -> None:
    """Execute SQL text as it stands: no bind parameters, any number of statements."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    driver.execute(statements.encode())


def apply(
    database: Database,
    what: str,
    relations: list[str],
    work: Callable[[sa.Connection], Result],
    readers: bool = False,
    tables: Sequence[str] = (),
) -> Result:
    """Run *work* in one transaction that waits only briefly for a lock; try again for a while.

    *relations* are those that it changes, *readers* says whether reading blocks it too; *tables*
    are those that it only reads or writes.
    Raises MigrationError naming who is in the way, or the missing privilege; nothing is left half
    done.
    """
    deadline, timeout, seen = time.monotonic() + PATIENCE, LOCK_TIMEOUT, ""
    nobody = " or ".join(relations)
    while True:
        try:
            with database.write() as connection:
                connection.execute(_SETTINGS, {"milliseconds": f"{timeout * 1000:.0f}"})
                connection.execute(_ONE_AT_A_TIME)
                return work(connection)
        except DatabaseError as error:
            if error.sqlstate == "42501":
                cause = error.__cause__
                said = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
                raise MigrationError(
                    f"{what}: nothing was changed: {said or error}; name the tables' owner in "
                    f"{WRITE_URL}, or give a DBA what `queue-insights {what.split()[0]} sql` prints"
                ) from error
            if error.sqlstate not in ("55P03", "40P01"):  # lock timeout, deadlock
                raise
        names = {"names": relations, "readers": readers, "tables": list(tables)}
        blockers, timeout = _blockers(database, names)
        seen = blockers or seen
        if time.monotonic() > deadline:
            raise MigrationError(
                f"{what}: gave up after {PATIENCE:.0f} s, nothing was changed: "
                f"{seen or f'{nobody} is in use by sessions that come and go'}; "
                "try again when that has ended"
            )
        time.sleep(random.uniform(0.2, 1.0))


def _blockers(database: Database, names: dict[str, Any]) -> tuple[str, float]:
    """Who is in the way, and how long to wait for a lock next time."""
    with database.read(primary=True) as moment:
        found = moment.connection.execute(_BLOCKERS, names).all()
        yields = "SELECT extract(epoch FROM current_setting('deadlock_timeout')::interval)::float8"
        deadlock = moment.connection.scalar(sa.text(yields))
    # Autovacuum gives way to whoever has waited for it as long as deadlock_timeout.
    only_vacuum = bool(found) and all(row.backend_type == "autovacuum worker" for row in found)
    timeout = deadlock + LOCK_TIMEOUT if only_vacuum else LOCK_TIMEOUT
    used = " and ".join(sorted({name for row in found[:3] for name in row.relations}))
    by = ", ".join(_describe(row) for row in found[:3])
    return by and f"{formats.visible(used, 120)} is in use by {by}", timeout


def _describe(row: Any) -> str:
    if row.pid is None:
        return "a prepared transaction (see pg_prepared_xacts)"
    facts = [row.application or row.backend_type, row.state]
    if row.seconds is not None:
        facts.append(f"last statement began {formats.duration(row.seconds)} ago")
    return f"pid {row.pid} ({formats.visible(', '.join(f for f in facts if f), 120)})"


def write(path: Path, text: str) -> None:
    """Write a migration file, whole or not at all, with the folders it needs.

    Raises InputError if it is there with other content: a migration that has run is not edited.
    """
    try:
        if path.exists():
            if path.read_bytes() != text.encode():
                raise InputError(
                    f"{path}: holds something else already; give the new migration a new name"
                )
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            partial.write_bytes(text.encode())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
