"""The least privileges that a reader and an operator need, as SQL for whoever may grant them."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

import sqlalchemy as sa

from queue_insights import migration as migrations
from queue_insights.actions import ledger
from queue_insights.errors import InputError
from queue_insights.formats import visible
from queue_insights.queue import Queue
from queue_insights.schema import Schema, quoted
from queue_insights.views import VIEWS

Kind = Literal["reader", "operator"]
KINDS: dict[Kind, str] = {
    "reader": "all reads, reports, and dry runs; writes nothing",
    "operator": "what a reader may, and the actions with their undo",
}
LONGEST_NAME = 63  # bytes; Postgres cuts off the rest, and would grant to another role


def generate(queue: Queue, kind: Kind, role: str) -> str:
    """The statements that make *role* a reader or an operator of *queue*, as text for psql.

    They are for the tables, dashboards, views and ledger that are there now, and may be run again.
    Nothing is executed. What the application's own triggers on these tables need, where they run
    with the rights of whoever writes, comes on top.

    Raises InputError for a name that no role can have, and as every read.

    >>> print(generate(queue, "reader", "analyst"))
    """
    to = _identifier(role)
    with queue.database.read(primary=True) as moment:
        schema = migrations.qualified(moment.connection, queue.pipeline)
        names = [*ledger.TABLES, *VIEWS]
        present = ledger.present(moment.connection, names)
        database = str(moment.connection.scalar(sa.text("SELECT current_database()")))
        sequences = ledger.sequences(moment.connection, schema)
    pipeline = visible(f"{queue.pipeline.name} ({queue.pipeline.fingerprint})")
    lines = [
        f"-- queue-insights {kind}: {KINDS[kind]}.",
        f"-- Pipeline {pipeline}, variant {schema.variant.upper()}.",
        "-- For the owner of the database and its tables to run; may be run again.",
        f"GRANT CONNECT ON DATABASE {quoted(database)} TO {to};",
        *_reader(schema, present, to),
    ]
    if kind == "operator":
        lines += _operator(schema, present, sequences, to)
    elif not set(present) >= set(names):
        lines += [
            "-- Not all of the ledger and the views of queue-insights is there yet: print this",
            "-- again after the first action, and after `views install`.",
        ]
    return "\n".join(lines) + "\n"


def _identifier(role: str) -> str:
    """The role's name in quotes, whatever it is: unquoted, current_user would be somebody else."""
    storable = role and not re.search("[\x00\ud800-\udfff]", role)
    if not storable or role in ("public", "none") or len(role.encode()) > LONGEST_NAME:
        raise InputError(
            f"grants: ROLE: found {visible(role)!r}, expected the name of one role, "
            f"at most {LONGEST_NAME} bytes long"
        )
    return '"' + role.replace('"', '""') + '"'


def _reader(schema: Schema, present: Iterable[str], to: str) -> Iterator[str]:
    relations = [schema.tracks, schema.tasks, *schema.dashboards.values()]
    homes = dict.fromkeys(quoted(str(table.schema)) for table in relations)
    yield f"GRANT USAGE ON SCHEMA {', '.join(homes)} TO {to};"
    yield f"GRANT SELECT ON {', '.join(map(quoted, relations))} TO {to};"
    if ours := [f"queue_insights.{name}" for name in present if name != ledger.TARGETS.name]:
        yield f"GRANT USAGE ON SCHEMA queue_insights TO {to};"
        yield f"GRANT SELECT ON {', '.join(sorted(ours))} TO {to};"


def _operator(
    schema: Schema, present: Iterable[str], sequences: Iterable[str], to: str
) -> Iterator[str]:
    tracks, tasks = quoted(schema.tracks), quoted(schema.tasks)
    if schema.variant == "b":
        yield f"-- Postgres grants by table: this includes the rows of {tasks} that are not ours."
    yield f"GRANT INSERT, UPDATE, DELETE ON {tasks} TO {to};"
    for sequence in sequences:
        yield f"GRANT USAGE ON SEQUENCE {sequence} TO {to};"
    yield "-- No action changes a track. To lock one takes UPDATE on any one of its columns; this"
    yield "-- is the one that says least: the table's own trigger, where there is one, sets it."
    updated_at = quoted(schema.tracks.c.updated_at.name)
    yield f"GRANT UPDATE ({updated_at}) ON {tracks} TO {to};"
    if not set(present) >= set(ledger.TABLES):
        yield "\n-- The ledger, so that the role need not have CREATE on the database.\n"
        yield f"{ledger.ddl()}\n"
        yield f"GRANT USAGE ON SCHEMA queue_insights TO {to};"
    ours = ", ".join(f"queue_insights.{name}" for name in ledger.TABLES)
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {ours} TO {to};"
