"""What a role must be allowed to do, for reads and for each kind of action, and what it lacks."""

import sqlalchemy as sa

from queue_insights.actions.definitions import Action
from queue_insights.database import WRITE_URL
from queue_insights.errors import RunError
from queue_insights.schema import AnySchema, Schema
from queue_insights.sql import Query, unescaped


def lacking(connection: sa.Connection, schema: AnySchema, kind: str) -> dict[str, list[str]]:
    """What this role lacks to "read", or for the actions of a *kind* and their undo ("insert" takes
    most): privileges, by what they are on, as GRANT names both."""
    tables = {}
    if isinstance(schema, Schema):
        both = {"tracks": schema.tracks, "tasks": schema.tasks}
        tables = {name: unescaped(table.table) for name, table in both.items()}
    found = Query(schema.render("privileges.sql", kind=kind), tables).rows(connection)
    return {row.relation: row.privileges for row in found}


def require(connection: sa.Connection, schema: AnySchema, action: Action) -> None:
    """Refuse before anything is written what this role could not finish. Raises RunError."""
    for on, (privilege, *_) in lacking(connection, schema, action.kind).items():
        why = (
            f"this role lacks {privilege.split()[0]} on {on}; ask its owner for "
            f"GRANT {privilege} ON {on}, or use another role in {WRITE_URL}"
        )
        if on.startswith("DATABASE "):
            why = (
                "there is no ledger yet and this role may not create the schema queue_insights; "
                "a DBA can run the output of `queue-insights runs --ddl`"
            )
        raise RunError(f"{action.name}: nothing was done: {why}")
