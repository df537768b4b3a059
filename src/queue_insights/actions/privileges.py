"""What a role must be allowed to do, for reads and for each kind of action, and what it lacks."""

from collections.abc import Sequence

import sqlalchemy as sa

from queue_insights.actions.definitions import Action
from queue_insights.actions.ledger import TABLES
from queue_insights.database import WRITE_URL
from queue_insights.errors import RunError
from queue_insights.schema import Schema
from queue_insights.sql import identifier, unescaped

# From the catalogue: to_regclass would fail for a role that may not look into the schema.
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


def sequences(connection: sa.Connection, schema: Schema) -> list[str]:
    """What new task rows take their numbers from."""
    column = {"table": unescaped(schema.tasks.table), "column": schema.tasks.roles["id"]}
    return list(connection.scalars(_SEQUENCES, column))


def lacking(connection: sa.Connection, schema: Schema, kind: str) -> dict[str, list[str]]:
    """What this role lacks to "read", or for the actions of a *kind* and their undo ("insert" takes
    most): privileges, by what they are on, as GRANT names both."""

    def lacks(on: str, name: str, *privileges: str) -> list[str]:
        test = getattr(sa.func, f"has_{on}_privilege")
        return [p for p in privileges if not connection.scalar(sa.select(test(name, p)))]

    tracks, tasks = unescaped(schema.tracks.table), unescaped(schema.tasks.table)
    found = {
        tracks: lacks("table", tracks, "SELECT"),
        tasks: lacks("table", tasks, *_ON_TASKS[kind]),
    }
    if kind != "read":
        if lacks("any_column", tracks, "UPDATE"):  # which it takes to lock a track
            found[tracks].append(f"UPDATE ({unescaped(schema.tracks.updated_at)})")
        for sequence in sequences(connection, schema) if kind == "insert" else ():
            found[f"SEQUENCE {sequence}"] = lacks("sequence", sequence, "USAGE")
        if not (tables := [f"queue_insights.{table}" for table in present(connection)]):
            database = str(connection.scalar(sa.text("SELECT current_database()")))
            found[f"DATABASE {unescaped(identifier(database))}"] = lacks(
                "database", database, "CREATE"
            )
        elif no_usage := lacks("schema", "queue_insights", "USAGE"):
            found["SCHEMA queue_insights"] = no_usage
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
