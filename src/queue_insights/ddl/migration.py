"""DDL with a way back, applied without holding a live queue up."""

import hashlib
import json
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.database import WRITE_URL, retried
from queue_insights.errors import DatabaseError, InputError, QueueInsightsError
from queue_insights.formats import visible
from queue_insights.pipeline import split_table
from queue_insights.queue import Queue
from queue_insights.schema import KIND, Schema
from queue_insights.sql import Query, identifier, render, text, unescaped

LOCK_TIMEOUT = 0.5  # seconds; whoever writes to the table queues up behind a lock that waits
PATIENCE = 20.0  # seconds of tries, before the blocker is named and nothing has been done
# Literals mean what they say only where a backslash is nothing special.
_PLAIN = "SET LOCAL standard_conforming_strings = on;"
_ALONE = f"{_PLAIN} SELECT pg_advisory_xact_lock(hashtext('queue_insights.migration'))"
Result = TypeVar("Result")


class MigrationError(QueueInsightsError):
    """DDL that was not applied, or not undone: nothing of it was left behind."""


@dataclass(frozen=True)
class Migration:
    """Statements, those that undo them, and what a DBA should know first, as SQL comments."""

    about: str
    up: str
    down: str

    def text(self) -> str:
        """A file for psql or any migration tool. Running it goes up; its last lines, which are
        comments, are the way down."""
        begin = f"BEGIN;\nSET LOCAL lock_timeout = '{LOCK_TIMEOUT * 1000:.0f}ms';\n{_PLAIN}\n"
        # Wherever a comment would end: a name may have a line break in it.
        down = re.sub(r"^|(?<=[\n\r])", "--down ", f"{begin}{self.down}\nCOMMIT;")
        return (
            f"{self.about}\n\n{begin}\n{self.up}\n\nCOMMIT;\n\n"
            f"-- The way down: sed -n 's/^--down //p' THIS_FILE | psql\n{down}\n"
        )


def written(schema: Schema, file: str, **given: Any) -> str:
    """The template *file* for *schema* as text to run as it stands."""
    return unescaped(schema.render(file, made_for=shown(made_for(schema)), **given))


def shown(text: str) -> Markup:
    """*text* as it may stand in an SQL comment: on one line."""
    return Markup(visible(unescaped(text), 200).replace(":", "\\:"))


def made_for(schema: Schema) -> str:
    """What something is made for, on one line: ``pipeline karaoke (7e79f00d650e), variant A``."""
    name = visible(schema.pipeline.name, 120)
    return f"pipeline {name} ({schema.pipeline.fingerprint}), variant {schema.variant.upper()}"


def label(sql: str) -> str:
    """How the comment of an object ends that *sql* made, as it stands."""
    return f'"sql": "{hashlib.sha256(sql.encode()).hexdigest()[:12]}"}}'


def comment(schema: Schema, on: str, sql: str) -> str:
    """The statement that says *on* an object what it was made for, and by which *sql*."""
    facts = {"pipeline": schema.pipeline.name, "fingerprint": schema.pipeline.fingerprint}
    about = json.dumps(facts | {"variant": schema.variant}).removesuffix("}")
    return f"COMMENT ON {on} IS {unescaped(text(f'queue-insights {about}, {label(sql)}'))};"


def run(connection: sa.Connection, statements: str) -> None:
    """Execute SQL text as it stands: no bind parameters, any number of statements."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    driver.execute(statements.encode())


def apply(
    queue: Queue,
    what: str,
    work: Callable[[sa.Connection], Result],
    changed: Sequence[str] = (),
    readers: bool = False,
) -> Result:
    """Run *work* in one transaction that waits only briefly for a lock; try again for a while.

    *changed* are the relations that it changes (default the tracks); *readers*: reading them is in
    its way, too. Raises MigrationError naming who is in the way, or the missing privilege.
    """
    pipeline = queue.stages(what.partition(" ")[0])
    tables = map(split_table, (pipeline.tracks.table, pipeline.tasks.table))
    used = [".".join(unescaped(identifier(part)) for part in parts if part) for parts in tables]
    given = {"changed": list(changed or used[:1]), "used": used, "readers": readers}
    deadline = time.monotonic() + PATIENCE

    def once() -> Result:
        # Later tries outlast deadlock_timeout, when autovacuum gives way to who waits for it.
        lock = LOCK_TIMEOUT * (1 if time.monotonic() < deadline - PATIENCE / 2 else 3)
        with queue.database.write(f"{lock * 1000:.0f}ms", statement="60s", idle="5s") as connection:
            run(connection, _ALONE)
            return work(connection)

    def between(_: int) -> None:
        if time.monotonic() > deadline:
            with queue.database.read(primary=True) as moment:
                found = Query(render(KIND, "blockers.sql", {}), given).rows(moment.connection)
                raise MigrationError(
                    f"{what}: gave up after {PATIENCE:.0f} s, nothing was changed: "
                    f"{visible(found.scalar_one(), 300)}; try again when that has ended"
                )
        time.sleep(random.uniform(0.2, 1.0))

    try:  # again after a lock timeout or a deadlock, until *between* has had enough
        return retried(once, ("55P03", "40P01"), sys.maxsize, between)
    except DatabaseError as error:
        if error.sqlstate != "42501":
            raise
        cause = error.__cause__
        said = cause.diag.message_primary if isinstance(cause, psycopg.Error) else error
        raise MigrationError(
            f"{what}: nothing was changed: {said}; name the tables' owner in {WRITE_URL}, or give "
            f"a DBA what `queue-insights {what.split()[0]} sql` prints"
        ) from error


def write(path: Path, text: str) -> None:
    """Write a migration file, with the folders it needs. Raises InputError if it is there with
    other content: a migration that has run is not edited."""
    try:
        if path.exists() and not path.is_file():  # a pipe would keep us waiting
            raise InputError(f"{path}: cannot be written: it is no file")
        if path.exists() and path.read_bytes() != text.encode():
            raise InputError(f"{path}: holds something else already; give it another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
