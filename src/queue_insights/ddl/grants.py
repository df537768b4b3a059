"""The least privileges that a reader and an operator need, as SQL for whoever may grant them."""

import re
from typing import Literal

import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.actions.ledger import TABLES
from queue_insights.ddl import migration
from queue_insights.ddl.views import VIEWS
from queue_insights.errors import InputError
from queue_insights.formats import visible
from queue_insights.queue import Queue
from queue_insights.schema import reflect_stages
from queue_insights.sql import Query, unescaped

Kind = Literal["reader", "operator"]
LONGEST_NAME = 63  # bytes; Postgres cuts off the rest, and would grant to another role
_OURS = "SELECT relname FROM pg_class WHERE relnamespace::regnamespace::text = 'queue_insights'"


def generate(queue: Queue, kind: Kind, role: str) -> str:
    """The statements that make *role* a reader or an operator of *queue*, as text for psql, for
    the tables, dashboards, views and ledger that are there now. What the application's own triggers
    need, where they run with the rights of whoever writes, comes on top.

    >>> print(generate(queue, "reader", "analyst"))
    """
    storable = role and not re.search("[\x00\ud800-\udfff]", role)
    if not storable or role in ("public", "none") or len(role.encode()) > LONGEST_NAME:
        raise InputError(
            f"grants: ROLE: found {visible(role)!r}, expected the name of one role, "
            f"at most {LONGEST_NAME} bytes long"
        )
    with queue.database.read(primary=True) as moment:
        schema = reflect_stages(moment.connection, queue.stages("grants"))
        there = {*TABLES, *VIEWS} & {*moment.connection.scalars(sa.text(_OURS))}
        database = moment.connection.scalar(sa.text("SELECT current_database()"))
        tasks = {"tasks": unescaped(schema.tasks.table)}
        numbers = Query(schema.render("sequences.sql"), tasks).rows(moment.connection).scalars()
        sequences = [Markup(name) for name in numbers]
    given = {
        **{"operator": kind == "operator", "role": role, "database": database},
        "sequences": sequences,
        "relations": [schema.tracks, schema.tasks, *schema.dashboards.values()],
        # What is still to do, in the targets, is for those who do it.
        "ours": [Markup(f"queue_insights.{name}") for name in sorted(there - {"targets"})],
        "complete": there >= {*TABLES, *VIEWS},
        "ledger": there >= {*TABLES},
    }
    return migration.written(schema, "grants.sql", **given) + "\n"
