"""The truth as views, for psql, Grafana or Metabase: nothing is inserted for them.

They are compiled from the very queries behind ``Queue``, so that they say what the CLI says.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import sqlalchemy as sa

from queue_insights import migration as migrations
from queue_insights import queries
from queue_insights.formats import visible
from queue_insights.migration import Label, Migration
from queue_insights.queue import Queue
from queue_insights.schema import Schema

INSTALL = "run `queue-insights views install`"

_ABOUT = """\
queue-insights views: pipeline {pipeline}, variant {variant}

  queue_insights.backlog        per step, how much waits, by state     (queue-insights backlog)
  queue_insights.audit          what dashboards can see of it          (queue-insights audit)
  queue_insights.pending_tasks  what workers would select, in order of arrival, row or no row
                                (queue-insights upcoming, without its limit)

They read {tracks} and {tasks} with the rights of their owner, so that a dashboard's role needs none
on the tables, only:

  GRANT USAGE ON SCHEMA queue_insights TO dashboard;
  GRANT SELECT ON queue_insights.backlog, queue_insights.audit, queue_insights.pending_tasks
    TO dashboard;

pending_tasks shows titles and error messages. Columns that a view reads cannot be dropped or change
their type while it is there: go down before such a migration, and up again with a new file, as also
after the migration to another variant. If going up says that a column cannot be dropped or renamed,
go down first, and grant again (`queue-insights views install` does both)."""

_UP = """\
DO $$
BEGIN
    IF to_regnamespace('queue_insights') IS NULL THEN
        CREATE SCHEMA queue_insights;
        COMMENT ON SCHEMA queue_insights IS 'made for the views of queue-insights';
    END IF;
END
$$;

"""

_DOWN = """\
DROP VIEW IF EXISTS queue_insights.backlog, queue_insights.audit, queue_insights.pending_tasks;
"""

# The ledger may live there too, or the schema have been there before.
_DOWN_SCHEMA = """\
DO $$
BEGIN
    IF obj_description(to_regnamespace('queue_insights'), 'pg_namespace')
       = 'made for the views of queue-insights'
    THEN
        DROP SCHEMA queue_insights;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist THEN
    NULL;
END
$$;"""

_COMMENTS = sa.text("""
    SELECT relname, obj_description(oid, 'pg_class') FROM pg_class
    WHERE relnamespace = to_regnamespace('queue_insights') AND relkind = 'v'
      AND relname = ANY (:names)
""")
_GRANTS = sa.text("""
    SELECT format('GRANT %s ON queue_insights.%I TO %s%s;', a.privilege_type, c.relname,
                  CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM pg_class c, aclexplode(c.relacl) a
    WHERE c.relnamespace = to_regnamespace('queue_insights') AND c.relname = ANY (:names)
      AND a.grantee <> c.relowner
""")


VIEWS: dict[str, Callable[[Schema], queries.Query]] = {
    "backlog": queries.backlog,
    "audit": queries.audit,
    "pending_tasks": partial(queries.upcoming, limit=None),
}
RELATIONS = [f"queue_insights.{view}" for view in VIEWS]


def migration(schema: Schema) -> Migration:
    """The views for *schema*, whose tables are ``migration.qualified``."""
    statements = [
        f"CREATE OR REPLACE VIEW queue_insights.{view} AS\n{sql};\n"
        + Label.of(schema, sql).comment(f"VIEW queue_insights.{view}")
        for view, sql in _definitions(schema).items()
    ]
    about = migrations.about(_ABOUT, schema)
    return Migration(about, _UP + "\n\n".join(statements), _DOWN + _DOWN_SCHEMA)


def _definitions(schema: Schema) -> dict[str, str]:
    return {view: queries.compile_sql(query(schema)) for view, query in VIEWS.items()}


def generate(queue: Queue) -> Migration:
    """The views for the tables as they are, as a migration."""
    with queue.database.read(primary=True) as moment:
        return migration(migrations.qualified(moment.connection, queue.pipeline))


def install(queue: Queue) -> str:
    """Create the views, or bring them up to date, grants kept; says in a line what was done.

    One transaction. Raises MigrationError if a view stays in use or a privilege is missing,
    DatabaseError also where other views are built on one whose columns must change.
    """

    def work(connection: sa.Connection) -> str:
        schema = migrations.qualified(connection, queue.pipeline)
        _replace(connection, migration(schema).up)
        what = f"pipeline {visible(queue.pipeline.name)}, variant {schema.variant.upper()}"
        return f"views installed: {', '.join(RELATIONS)} ({what})"

    tables = [queue.pipeline.tracks.table, queue.pipeline.tasks.table]
    return migrations.apply(
        queue.database, "views install", RELATIONS, work, readers=True, tables=tables
    )


def _replace(connection: sa.Connection, up: str) -> None:
    """Go up; where a view's columns have changed, which REPLACE cannot do, go down before."""
    savepoint = connection.begin_nested()
    try:
        migrations.run(connection, up)
        savepoint.commit()
    except psycopg.errors.InvalidTableDefinition:
        savepoint.rollback()
        grants = connection.scalars(_GRANTS, {"names": list(VIEWS)}).all()
        migrations.run(connection, _DOWN)
        migrations.run(connection, up + "\n".join(["", *grants]))


def uninstall(queue: Queue) -> str:
    """Drop what ``install`` made, and nothing else: the schema only if it was made for the views
    and holds nothing more. Says in a line what was done; raises as ``install``."""

    def work(connection: sa.Connection) -> str:
        found = connection.execute(_COMMENTS, {"names": list(VIEWS)}).all()
        migrations.run(connection, _DOWN + _DOWN_SCHEMA)
        return "views removed" if found else "there were no views of queue-insights"

    return migrations.apply(queue.database, "views uninstall", RELATIONS, work, readers=True)


def verify(queue: Queue) -> list[str]:
    """What is amiss with the views, a line each, and what to do about it; empty if nothing is.

    Looked at: present, as this pipeline and the table's variant need them, and saying the same as
    the library in the same moment (of pending_tasks, only how many per task).
    """
    with queue.database.read(primary=True) as moment:
        return list(_findings(moment.connection, queue))


def _findings(connection: sa.Connection, queue: Queue) -> Iterator[str]:
    schema = migrations.qualified(connection, queue.pipeline)
    found = connection.execute(_COMMENTS, {"names": list(VIEWS)}).all()
    comments: dict[str, str | None] = {row[0]: row[1] for row in found}
    for view, sql in _definitions(schema).items():
        if view not in comments:
            yield f"there is no view queue_insights.{view}: {INSTALL}"
        elif reason := Label.of(schema, sql).differs(Label.read(comments[view])):
            yield f"view queue_insights.{view} {reason}: {INSTALL} again"
        elif problem := _differs(connection, view, VIEWS[view](schema)):
            yield f"view queue_insights.{view} {problem}: {INSTALL} again"


def _differs(connection: sa.Connection, view: str, query: queries.Query) -> str:
    """How the view's answer differs from the query's, in words; nothing if it does not."""
    columns = [sa.column(c.name, c.type) for c in query.selected_columns]
    theirs: Any = sa.select(*columns).select_from(sa.table(view, *columns, schema="queue_insights"))
    if view == "pending_tasks":
        query, theirs = _per_task(query), _per_task(theirs)
    savepoint = connection.begin_nested()
    try:
        same = queries.fetch(connection, query).equals(queries.fetch(connection, theirs))
    except sa.exc.ProgrammingError as error:
        savepoint.rollback()
        return f"cannot be read as it was installed ({str(error.orig).splitlines()[0]})"
    return "" if same else "was changed after it was installed"


def _per_task(query: Any) -> queries.Query:
    rows = query.order_by(None).subquery("rows")
    count = queries.count(sa.func.count()).label("rows")
    return sa.select(rows.c.task_type, count).group_by(rows.c.task_type).order_by(rows.c.task_type)
