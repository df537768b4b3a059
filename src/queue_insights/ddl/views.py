"""The truth as views, for psql, Grafana or Metabase: nothing is inserted for them.

They are made of the very queries behind ``Queue``, so that they say what the CLI says.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.ddl import migration
from queue_insights.ddl.migration import Migration
from queue_insights.queue import Queue
from queue_insights.schema import KIND, Schema, reflect_stages
from queue_insights.sql import Query, render
from queue_insights.sql.frames import query

# The read that each view has from, with its parameters; what of a row is compared in verifying.
VIEWS: dict[str, tuple[str, dict[str, Any], str]] = {
    "backlog": ("backlog", {}, "to_jsonb(v)"),
    "audit": ("audit", {"sources": False}, "to_jsonb(v)"),
    "pending_tasks": ("upcoming", {"limit": None}, "ARRAY[v.task_type::text, v.state]"),
}
RELATIONS = [f"queue_insights.{view}" for view in VIEWS]
_DROP = f"DROP VIEW IF EXISTS {', '.join(RELATIONS)};"


def _queries(schema: Schema) -> dict[str, Query]:
    """The query of each view; what moment it is made in makes no difference."""
    now = datetime.now(UTC)
    return {view: query(schema, now, read, **given) for view, (read, given, _) in VIEWS.items()}


def _migration(schema: Schema) -> Migration:
    both = migration.shown(f"{schema.tracks.table} and {schema.tasks.table}")
    about = migration.written(schema, "views_about.sql", both=both)
    statements = [render(KIND, "views_up.sql", {})]
    for view, made in _queries(schema).items():
        create = f"CREATE OR REPLACE VIEW queue_insights.{view} AS\n{made.sql};"
        comment = migration.comment(schema, f"VIEW queue_insights.{view}", made.sql)
        statements.append(f"{create}\n{comment}")
    return Migration(about, "\n\n".join(statements), _down())


def _down() -> str:
    return f"{_DROP}\n\n{render(KIND, 'views_down.sql', {})}"


def generate(queue: Queue) -> Migration:
    """The views for the tables as they are, as a migration."""
    with queue.database.read(primary=True) as moment:
        return _migration(reflect_stages(moment.connection, queue.stages("views")))


def install(queue: Queue) -> str:
    """Create the views, or bring them up to date, grants kept; says in a line what was done. Raises
    MigrationError if a view stays in use or a privilege is missing, DatabaseError also where other
    views are built on one whose columns must change."""

    def work(connection: sa.Connection) -> str:
        schema = reflect_stages(connection, queue.stages("views"))
        up = _migration(schema).up
        savepoint = connection.begin_nested()
        try:
            migration.run(connection, up)
            savepoint.commit()
        except psycopg.errors.InvalidTableDefinition:
            # A view's columns have changed, which REPLACE cannot do.
            savepoint.rollback()
            grants = [grant for view in _found(connection) for grant in view.grants]
            migration.run(connection, "\n".join([_DROP, up, *grants]))
        return f"views installed: {', '.join(RELATIONS)} ({migration.made_for(schema)})"

    return migration.apply(queue, "views install", work, RELATIONS, readers=True)


def uninstall(queue: Queue) -> str:
    """Drop what ``install`` made, and nothing else: the schema only if it was made for the views
    and holds nothing more. Says in a line what was done; raises as ``install``."""

    def work(connection: sa.Connection) -> str:
        found = _found(connection)
        migration.run(connection, _down())
        return "views removed" if found else "there were no views of queue-insights"

    return migration.apply(queue, "views uninstall", work, RELATIONS, readers=True)


def verify(queue: Queue) -> list[str]:
    """What is amiss with the views, a line each, and what to do about it; empty if they say the
    same as the library in the same moment (of pending_tasks, only how many per task and state)."""
    findings = []
    with queue.database.read(primary=True) as moment:
        found = {view.name: view.comment or "" for view in _found(moment.connection)}
        schema = reflect_stages(moment.connection, queue.stages("views"))
        for view, made in _queries(schema).items():
            name = f"queue_insights.{view}"
            given = {"view": name, "query": made.text, "compared": VIEWS[view][2]}
            differ = render(KIND, "views_differ.sql", {key: Markup(given[key]) for key in given})
            if view not in found:
                findings.append(f"there is no view {name}")
            elif not found[view].endswith(migration.label(made.sql)):
                findings.append(f"view {name} is not what `queue-insights views sql` prints now")
            elif Query(differ).rows(moment.connection).scalar():
                findings.append(f"view {name} was changed after it was installed")
    return [f"{finding}: run `queue-insights views install`" for finding in findings]


def _found(connection: sa.Connection) -> Sequence[Any]:
    """The views that are there, as views_found.sql has them."""
    return Query(render(KIND, "views_found.sql", {})).rows(connection).all()
