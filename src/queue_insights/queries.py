"""Every read, as one SQL statement each: Postgres answers, pandas only holds the answer.

Each function takes the reflected schema and returns a Select; ``fetch`` runs one, ``compile_sql``
prints one. The frames they make are described on the methods of ``Queue``.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from queue_insights.errors import InputError
from queue_insights.pipeline import Step, nearest
from queue_insights.schema import Schema
from queue_insights.states import (
    ELIGIBLE,
    OPEN,
    OPEN_STATES,
    STATES,
    WAITING,
    history,
    integer,
    orphaned,
    standing,
    standing_anywhere,
    steps,
)

Query = sa.Select[Any] | sa.CompoundSelect[Any]


class _Count(sa.BigInteger):
    """A number of rows: never null, so int64 in a frame (the tables' own integers are Int64)."""


_DTYPES: dict[type, str] = {
    _Count: "int64",
    sa.Integer: "Int64",
    sa.Float: "float64",
    sa.DateTime: "datetime64[us, UTC]",
    sa.String: "str",
    sa.Boolean: "boolean",
}


def fetch(connection: sa.Connection, query: Query) -> pd.DataFrame:
    """The query's rows as a frame whose dtypes depend on the query only, not on its rows."""
    rows = connection.execute(query).all()
    columns = query.selected_columns
    frame = pd.DataFrame.from_records(rows, columns=[c.name for c in columns])
    for column in columns:
        base = next((t for t in type(column.type).__mro__ if t in _DTYPES), None)
        if base is sa.DateTime:
            frame[column.name] = pd.to_datetime(frame[column.name], utc=True)
        if base is not None:
            frame[column.name] = frame[column.name].astype(_DTYPES[base])
    return frame


def compile_sql(query: sa.ClauseElement) -> str:
    """*query* as text for psql, its values as literals."""
    dialect = postgresql.psycopg.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    dialect._backslash_escapes = False  # as every server since 9.1 has it
    return str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def explain(connection: sa.Connection, query: Query) -> dict[str, Any]:
    """The root node of the plan that Postgres has for *query*, as EXPLAIN (FORMAT JSON) says it."""
    driver = connection.connection.driver_connection
    assert driver is not None
    # Through the driver: SQLAlchemy would look for parameters in the text.
    ((plan,),) = driver.execute(f"EXPLAIN (FORMAT JSON) {compile_sql(query)}").fetchall()
    root: dict[str, Any] = plan[0]["Plan"]
    return root


# Kept: for Python to build one takes longer than for Postgres to plan it.
@lru_cache(maxsize=16)
def backlog(schema: Schema) -> Query:
    """Per step: tracks, the ten states, eligible, waiting, visible, oldest waiting age."""
    step = steps(schema)
    at_step = standing_anywhere(schema).subquery("standing")
    oldest = sa.func.min(at_step.c.arrived_at).filter(
        at_step.c.state.in_(WAITING), sa.func.isfinite(at_step.c.arrived_at)
    )
    tracks = (
        sa.select(
            at_step.c.position,
            sa.func.count().label("tracks"),
            *(_in(at_step, [name]).label(name) for name in STATES),
            _in(at_step, ELIGIBLE).label("eligible"),
            _in(at_step, WAITING).label("waiting"),
            seconds(sa.func.now() - oldest).label("oldest"),
        )
        .group_by(at_step.c.position)
        .subquery("tracks")
    )
    rows = _rows(schema)
    return (
        sa.select(
            step.c.stage,
            step.c.task_type,
            *(_or_zero(tracks.c[name]) for name in ("tracks", *STATES, "eligible", "waiting")),
            _or_zero(rows.c.visible),
            tracks.c.oldest.label("oldest_waiting_seconds"),
        )
        .select_from(_each(step, tracks, rows))
        .order_by(step.c.position)
    )


@lru_cache(maxsize=16)
def audit(schema: Schema, sources: bool = False) -> Query:
    """Per step: what is eligible, what dashboards can see of it, and a verdict."""
    step = steps(schema)
    at_step = standing_anywhere(schema).subquery("standing")
    tracks = (
        sa.select(
            at_step.c.position,
            _in(at_step, ELIGIBLE).label("eligible"),
            _in(at_step, ["missing"]).label("hidden"),
            _in(at_step, OPEN_STATES).label("with_open_row"),
        )
        .group_by(at_step.c.position)
        .subquery("tracks")
    )
    rows = _rows(schema, OPEN)
    hidden = _or_zero(tracks.c.hidden)
    # Every open row is an orphan unless its track stands there: so none has to be looked up.
    left_over = count(sa.func.coalesce(rows.c.all, 0) - sa.func.coalesce(tracks.c.with_open_row, 0))
    found, said = _each(step, tracks, rows), list[sa.ColumnElement[int]]()
    if sources:
        found, said = _sources(schema, step, found)
    verdict = sa.case((hidden > 0, "hidden"), (left_over > 0, "overstated"), else_="visible")
    return (
        sa.select(
            step.c.stage,
            step.c.task_type,
            _or_zero(tracks.c.eligible),
            _or_zero(rows.c.visible),
            hidden,
            left_over.label("orphans"),
            verdict.label("verdict"),
            *said,
        )
        .select_from(found)
        .order_by(step.c.position)
    )


def missing(schema: Schema, task: str | None = None, limit: int | None = None) -> Query:
    """The tracks that wait and have no task row, in order of arrival."""
    return _tracks(schema, task, ["missing"], limit, row=False)


def upcoming(schema: Schema, task: str | None = None, limit: int | None = 50) -> Query:
    """The tracks that workers would select next, in order of arrival."""
    return _tracks(schema, task, ELIGIBLE, limit)


def tasks(
    schema: Schema, state: str | None = None, task: str | None = None, limit: int | None = None
) -> Query:
    """The tracks at a step, in one state or all, with their task rows."""
    if state is not None and state not in STATES:
        raise InputError(
            f"unknown state {state!r}: expected one of {', '.join(STATES)}{nearest(state, STATES)}"
        )
    return _tracks(schema, task, STATES if state is None else [state], limit)


def orphans(schema: Schema, task: str | None = None, limit: int | None = None) -> Query:
    """Pending and failed rows whose track is not at their task's stage."""
    found = [
        _track_columns(schema, orphaned(schema, step, schema.row_keys).subquery("orphan"))
        for step in schema.pipeline.select(task)
    ]
    return _in_order(schema, found, limit)


def track(schema: Schema, id: str) -> Query:
    """What one track has of each step, in pipeline order, and then of any other task."""
    steps = []
    for position, step in enumerate([*schema.pipeline.steps, None]):
        had = history(schema, id, step, schema.row_keys).subquery("history")
        steps.append(_track_columns(schema, had).add_columns(integer(position).label("position")))
    found = sa.union_all(*steps).subquery("found")
    shown = [column for column in found.c if column.name != "position"]
    return sa.select(*shown).order_by(found.c.position, found.c.arrived_at)


def _each(step: sa.CTE, tracks: sa.FromClause, rows: sa.FromClause) -> sa.FromClause:
    """Every step, with what was counted of it if anything was."""
    return step.outerjoin(tracks, tracks.c.position == step.c.position).outerjoin(
        rows, rows.c.task_type == step.c.task_type
    )


def count(expression: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """*expression* as a number of rows: int64 in a frame."""
    return sa.cast(expression, _Count())


def _in(at_step: sa.FromClause, states: Sequence[str]) -> sa.ColumnElement[int]:
    return sa.func.count().filter(at_step.c.state.in_(states))


def _or_zero(counted: sa.ColumnElement[Any]) -> sa.Label[int]:
    return count(sa.func.coalesce(counted, 0)).label(counted.key)


def seconds(interval: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", interval), sa.Double())


def _rows(schema: Schema, statuses: Sequence[str] = ("pending",)) -> sa.Subquery:
    """Rows of each of our tasks, wherever their tracks are: task_type, visible (those with status
    pending), all (those with one of *statuses*)."""
    row = schema.tasks.alias("task")
    return (
        sa.select(
            row.c.task_type,
            sa.func.count().filter(row.c.status == "pending").label("visible"),
            sa.func.count().label("all"),
        )
        .where(schema.of_steps(row), row.c.status.in_(statuses))
        .group_by(row.c.task_type)
        .subquery("rows")
    )


def _sources(
    schema: Schema, step: sa.CTE, found: sa.FromClause
) -> tuple[sa.FromClause, list[sa.ColumnElement[int]]]:
    """*found* joined to what each dashboard source says is pending at the steps, and the columns
    that say it: null where the source does not exist."""
    row, tracks = schema.tasks.alias("source"), schema.tracks.alias("track")
    said: dict[str, sa.Select[Any]] = {
        "get_pending_tasks": sa.select(row.c.task_type.label("of"), sa.func.count().label("said"))
        .join(tracks, row.c.track_id == tracks.c.id)
        .where(row.c.status == "pending")
        .group_by(row.c.task_type)
    }
    if (view := schema.dashboards.get("task_summary")) is not None:
        said["task_summary"] = (
            sa.select(view.c.task_type.label("of"), sa.func.sum(view.c["count"]).label("said"))
            .where(view.c.status == "pending")
            .group_by(view.c.task_type)
        )
    if (view := schema.dashboards.get("audio_progress")) is not None:
        said["audio_progress"] = (
            sa.select(tracks.c.stage.label("of"), sa.func.sum(view.c.pending).label("said"))
            .join(view, view.c[schema.tracks.c.id.name] == tracks.c.id)
            .group_by(tracks.c.stage)
        )
    columns: list[sa.ColumnElement[int]] = []
    for name in ("get_pending_tasks", "task_summary", "audio_progress"):
        total: sa.ColumnElement[Any] = sa.null()
        if name in said:
            source = said[name].subquery(name)
            of = step.c.stage if name == "audio_progress" else step.c.task_type
            found = found.outerjoin(source, source.c.of == of)
            total = sa.func.coalesce(source.c.said, 0)
        columns.append(sa.cast(total, sa.BigInteger()).label(name))
    return found, columns


def _tracks(
    schema: Schema, task: str | None, states: Sequence[str], limit: int | None, row: bool = True
) -> Query:
    def one(step: Step) -> sa.Select[Any]:
        keys = schema.row_keys if row else []
        at_step = standing(schema, step, keys).subquery("standing")
        return _track_columns(schema, at_step, row).where(at_step.c.state.in_(states))

    return _in_order(schema, [one(step) for step in schema.pipeline.select(task)], limit)


def _track_columns(schema: Schema, found: sa.FromClause, row: bool = True) -> sa.Select[Any]:
    """The columns of a list of tracks, out of ``standing`` or ``orphaned``."""
    leading = ["title", "stage", "task_type", "state", "arrived_at"]
    if not row or "state" not in found.c:
        leading.remove("state")
    columns = [
        found.c.track_id.label(schema.tracks.c.id.name),
        *(found.c[name] for name in leading),
    ]
    if row:
        taken = {column.name for column in columns} | {"state"}
        for key in schema.row_keys:
            name = schema.tasks.c[key].name
            columns.append(found.c[f"row_{key}"].label(f"task_{name}" if name in taken else name))
    return sa.select(*columns)


def _in_order(schema: Schema, selects: list[sa.Select[Any]], limit: int | None) -> Query:
    """All of *selects* in order of arrival, then primary key: the order workers go by."""
    found = sa.union_all(*selects).subquery("found")
    order = (found.c.arrived_at, found.c[schema.tracks.c.id.name], found.c.task_type)
    if limit is not None and limit < 0:
        raise InputError(f"limit: found {limit}, expected zero or more")
    return sa.select(*found.c).order_by(*order).limit(limit)
