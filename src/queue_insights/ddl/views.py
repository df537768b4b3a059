"""The truth as views, for psql, Grafana or Metabase: nothing is inserted for them.

They are made of the very queries behind ``Queue``, so that they say what the CLI says.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.ddl import migration
from queue_insights.ddl.migration import Migration, label, written
from queue_insights.queue import Queue
from queue_insights.schema import KIND, Schema, reflect
from queue_insights.sql import Query, render
from queue_insights.sql.frames import query

INSTALL = "run `queue-insights views install`"
VIEWS = ("backlog", "audit", "pending_tasks")
RELATIONS = [f"queue_insights.{view}" for view in VIEWS]


def _queries(schema: Schema) -> dict[str, Query]:
    """The query of each view; what moment it is made in makes no difference."""
    now = datetime.now(UTC)
    backlog, audit = query(schema, now, "backlog"), query(schema, now, "audit", sources=False)
    upcoming = query(schema, now, "upcoming", limit=None)
    return {"backlog": backlog, "audit": audit, "pending_tasks": upcoming}


def _migration(schema: Schema) -> Migration:
    tables = f"{schema.tracks.table} and {schema.tasks.table}"
    about = written(schema, "views_about.sql", both=migration.shown(tables))
    statements = [written(schema, "views_up.sql")]
    for view, made in _queries(schema).items():
        comment = migration.comment(schema, f"VIEW queue_insights.{view}", made.sql)
        create = f"CREATE OR REPLACE VIEW queue_insights.{view} AS"
        statements.append(f"{create}\n{made.sql};\n{comment}")
    return Migration(about, "\n\n".join(statements), written(schema, "views_down.sql"))


def generate(queue: Queue) -> Migration:
    """The views for the tables as they are, as a migration."""
    with queue.database.read(primary=True) as moment:
        return _migration(reflect(moment.connection, queue.pipeline))


def install(queue: Queue) -> str:
    """Create the views, or bring them up to date, grants kept; says in a line what was done.

    One transaction. Raises MigrationError if a view stays in use or a privilege is missing,
    DatabaseError also where other views are built on one whose columns must change.
    """

    def work(connection: sa.Connection) -> str:
        schema = reflect(connection, queue.pipeline)
        up = _migration(schema).up
        savepoint = connection.begin_nested()
        try:
            migration.run(connection, up)
            savepoint.commit()
        except psycopg.errors.InvalidTableDefinition:
            # A view's columns have changed, which REPLACE cannot do.
            savepoint.rollback()
            grants = [grant for view in _found(connection) for grant in view.grants]
            migration.run(connection, "\n".join([written(schema, "views_drop.sql"), up, *grants]))
        return f"views installed: {', '.join(RELATIONS)} ({migration.made_for(schema)})"

    return migration.apply(queue, "views install", work, RELATIONS, readers=True)


def uninstall(queue: Queue) -> str:
    """Drop what ``install`` made, and nothing else: the schema only if it was made for the views
    and holds nothing more. Says in a line what was done; raises as ``install``."""

    def work(connection: sa.Connection) -> str:
        found = _found(connection)
        migration.run(connection, render(KIND, "views_down.sql", {}))
        return "views removed" if found else "there were no views of queue-insights"

    return migration.apply(queue, "views uninstall", work, RELATIONS, readers=True)


def verify(queue: Queue) -> list[str]:
    """What is amiss with the views, a line each, and what to do about it; empty if nothing is.

    Looked at: present, as this pipeline and the table's variant need them, and saying the same as
    the library in the same moment (of pending_tasks, only how many per task).
    """
    with queue.database.read(primary=True) as moment:
        return list(_findings(moment.connection, reflect(moment.connection, queue.pipeline)))


def _found(connection: sa.Connection) -> Sequence[Any]:
    """The views that are there, as views_found.sql has them."""
    return Query(render(KIND, "views_found.sql", {})).rows(connection).all()


def _findings(connection: sa.Connection, schema: Schema) -> Iterator[str]:
    found = {view.name: view.comment or "" for view in _found(connection)}
    for view, made in _queries(schema).items():
        name = f"queue_insights.{view}"
        if view not in found:
            yield f"there is no view {name}: {INSTALL}"
            continue
        problem = "is not what `queue-insights views sql` prints now"
        if found[view].endswith(label(made.sql)):
            problem = _differs(connection, view, made)
        if problem:
            yield f"view {name} {problem}: {INSTALL} again"


def _differs(connection: sa.Connection, view: str, made: Query) -> str:
    """How the view's answer differs from the query's, in words; nothing if it does not."""
    given = {"view": Markup(f"queue_insights.{view}"), "query": Markup(made.text)}
    sql = render(KIND, "views_differ.sql", given | {"long": view == "pending_tasks"})
    savepoint = connection.begin_nested()
    try:
        differs = Query(sql).rows(connection).scalar()
    except sa.exc.ProgrammingError as error:
        savepoint.rollback()
        return f"cannot be read as it was installed ({str(error.orig).splitlines()[0]})"
    return "was changed after it was installed" if differs else ""
