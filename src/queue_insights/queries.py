"""Every read, as one SQL statement each: Postgres answers, pandas only holds the answer.

Each function takes the reflected schema and returns a Select; ``fetch`` runs one, ``compile_sql``
prints one. The frames they make are described on the methods of ``Queue``.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from queue_insights.errors import InputError
from queue_insights.pipeline import Step, nearest
from queue_insights.schema import Schema
from queue_insights.states import (
    ELIGIBLE,
    STATES,
    WAITING,
    history,
    is_orphan,
    orphaned,
    standing,
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


def backlog(schema: Schema) -> Query:
    """Per step: tracks, the ten states, eligible, waiting, visible, oldest waiting age."""

    def one(position: int, step: Step) -> sa.Select[Any]:
        n = _states(schema, step)
        oldest = sa.func.min(n.c.oldest).filter(n.c.state.in_(WAITING))
        return sa.select(
            *_step_labels(position, step),
            _total(n).label("tracks"),
            *(_total(n, [name]).label(name) for name in STATES),
            _total(n, ELIGIBLE).label("eligible"),
            _total(n, WAITING).label("waiting"),
            _visible(schema, step).label("visible"),
            _seconds(sa.func.now() - oldest).label("oldest_waiting_seconds"),
        )

    return _by_step(schema, one)


def audit(schema: Schema, sources: bool = False) -> Query:
    """Per step: what is eligible, what dashboards can see of it, and a verdict."""

    def one(position: int, step: Step) -> sa.Select[Any]:
        n = _states(schema, step)
        hidden, left_over = _total(n, ["missing"]), _orphans(schema, step)
        verdict = sa.case((hidden > 0, "hidden"), (left_over > 0, "overstated"), else_="visible")
        return sa.select(
            *_step_labels(position, step),
            _total(n, ELIGIBLE).label("eligible"),
            _visible(schema, step).label("visible"),
            hidden.label("hidden"),
            left_over.label("orphans"),
            verdict.label("verdict"),
            *(_sources(schema, step) if sources else ()),
        )

    return _by_step(schema, one)


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
        place: sa.Label[int] = sa.literal_column(str(position)).label("position")
        steps.append(_track_columns(schema, had).add_columns(place))
    found = sa.union_all(*steps).subquery("found")
    shown = [column for column in found.c if column.name != "position"]
    return sa.select(*shown).order_by(found.c.position, found.c.arrived_at)


def _by_step(schema: Schema, one: Callable[[int, Step], sa.Select[Any]]) -> Query:
    """UNION ALL of *one* record for each step, in pipeline order."""
    union = sa.union_all(*(one(i, step) for i, step in enumerate(schema.pipeline.steps)))
    steps = union.subquery("step")
    columns = [column for column in steps.c if column.name != "position"]
    return sa.select(*columns).order_by(steps.c.position)


def _step_labels(position: int, step: Step) -> Iterable[sa.ColumnElement[Any]]:
    yield sa.literal_column(str(position), sa.Integer()).label("position")
    yield sa.literal(step.stage).label("stage")
    yield sa.literal(step.task).label("task_type")


def _states(schema: Schema, step: Step) -> sa.Subquery:
    """The step's tracks counted by state: at most ten rows (state, n, oldest)."""
    at_step = standing(schema, step).subquery("standing")
    return (
        sa.select(
            at_step.c.state,
            sa.func.count().label("n"),
            sa.func.min(at_step.c.arrived_at).label("oldest"),
        )
        .group_by(at_step.c.state)
        .subquery("by_state")
    )


def count(expression: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """*expression* as a number of rows: int64 in a frame."""
    return sa.cast(expression, _Count())


def _total(by_state: sa.FromClause, states: Sequence[str] = ()) -> sa.ColumnElement[int]:
    """The number of tracks in *states*, or in any."""
    total: sa.ColumnElement[Any] = sa.func.sum(by_state.c.n)
    if states:
        total = sa.func.sum(by_state.c.n).filter(by_state.c.state.in_(states))
    return count(sa.func.coalesce(total, 0))


def _seconds(interval: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", interval), sa.Double())


def _visible(schema: Schema, step: Step) -> sa.ColumnElement[int]:
    row = schema.tasks.alias("visible")
    pending = sa.and_(schema.ours(row), row.c.task_type == step.task, row.c.status == "pending")
    counted = sa.select(sa.func.count()).select_from(row).where(pending)
    return count(counted.scalar_subquery())


def _orphans(schema: Schema, step: Step) -> sa.ColumnElement[int]:
    row, tracks = schema.tasks.alias("open"), schema.tracks.alias("track")
    # A probe for each open row: a join might read the whole table of tracks.
    stage = sa.select(tracks.c.stage).where(schema.of_track(row, tracks)).scalar_subquery()
    counted = sa.select(sa.func.count()).select_from(row)
    return count(counted.where(is_orphan(schema, row, step, stage)).scalar_subquery())


def _sources(schema: Schema, step: Step) -> Iterable[sa.ColumnElement[Any]]:
    """What each dashboard source says is pending at the step; null where it does not exist."""
    row, tracks = schema.tasks.alias("source"), schema.tracks.alias("track")
    shown = (
        sa.select(sa.func.count())
        .select_from(row.join(tracks, row.c.track_id == tracks.c.id))
        .where(row.c.task_type == step.task, row.c.status == "pending")
    )
    yield _nullable(shown).label("get_pending_tasks")
    summary = schema.dashboards.get("task_summary")
    if summary is None:
        yield sa.cast(sa.null(), sa.BigInteger).label("task_summary")
    else:
        said = sa.select(sa.func.coalesce(sa.func.sum(summary.c["count"]), 0)).where(
            summary.c.task_type == step.task, summary.c.status == "pending"
        )
        yield _nullable(said).label("task_summary")
    progress = schema.dashboards.get("audio_progress")
    if progress is None:
        yield sa.cast(sa.null(), sa.BigInteger).label("audio_progress")
    else:
        of_track = progress.c[schema.tracks.c.id.name] == tracks.c.id
        said = (
            sa.select(sa.func.coalesce(sa.func.sum(progress.c.pending), 0))
            .select_from(tracks.join(progress, of_track))
            .where(tracks.c.stage == step.stage)
        )
        yield _nullable(said).label("audio_progress")


def _nullable(query: sa.Select[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(query.scalar_subquery(), sa.BigInteger)


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
