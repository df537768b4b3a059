"""The one definition of the state of a (track, step) pair; everything else is built on it.

``standing`` is the relation behind every read: the tracks at a step's stage, each with its task
row (if any), its state, and its arrival. DESIGN section 3 is the source of each condition.
"""

from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from queue_insights.pipeline import Step
from queue_insights.schema import Schema

STATES = (
    "missing",
    "pending",
    "retryable",
    "backing_off",
    "running",
    "stuck",
    "exhausted",
    "drifted",
    "skipped",
    "other",
)
ELIGIBLE = ("missing", "pending", "retryable")
WAITING = (*ELIGIBLE, "backing_off")
MOVING = (*WAITING, "running")  # the others wait for somebody to mend them

OPEN = ("pending", "failed")  # statuses that a worker may still select
OPEN_STATES = ("pending", "retryable", "backing_off", "exhausted")  # of the rows with one of them

# The columns of a task row that state and arrival depend on.
_NEEDED = (
    "id",
    "status",
    "attempts",
    "max_attempts",
    "last_attempt_at",
    "next_retry_at",
    "created_at",
)


def interval(length: timedelta) -> sa.ColumnElement[timedelta]:
    """*length* as an SQL interval, printable as a literal in views and ``--sql``."""
    whole: sa.ColumnElement[int] = sa.literal_column("0, 0, 0, 0, 0, 0")
    return sa.func.make_interval(whole, length.total_seconds(), type_=sa.Interval())


def integer(n: int) -> sa.ColumnElement[int]:
    """*n* written out: what the planner is to know, and what is no parameter."""
    return sa.literal_column(str(n), sa.Integer)


def state(row: sa.FromClause, step: Step | sa.CTE) -> sa.ColumnElement[str]:
    """The state of a track at the stage of *step* (one, or the table of ``steps``), whose task row
    (all null for none) is *row*."""
    stuck_after = interval(step.stuck_after) if isinstance(step, Step) else step.c.stuck_after
    now = sa.func.now()
    is_open = row.c.status.in_(OPEN)
    # A null attempts or max_attempts makes this null, and the row exhausted: no worker selects it.
    attempts_left = row.c.attempts < row.c.max_attempts
    due = sa.or_(row.c.next_retry_at.is_(None), row.c.next_retry_at <= now)
    recent = row.c.last_attempt_at >= now - stuck_after
    return sa.case(
        (row.c.id.is_(None), "missing"),
        (sa.and_(is_open, attempts_left, sa.not_(due)), "backing_off"),
        (sa.and_(is_open, attempts_left, row.c.status == "pending"), "pending"),
        (sa.and_(is_open, attempts_left), "retryable"),
        (is_open, "exhausted"),
        (sa.and_(row.c.status == "running", recent), "running"),
        (row.c.status == "running", "stuck"),
        (row.c.status == "completed", "drifted"),
        (row.c.status == "skipped", "skipped"),
        else_="other",
    )


def _task_row(
    schema: Schema,
    tracks: sa.FromClause,
    task: str | sa.ColumnElement[str],
    keys: Iterable[str] = (),
) -> sa.FromClause:
    """The at most one row of *task* for the track at hand.

    OFFSET 0 keeps it a probe of the unique key for each track, so that the cost follows the
    backlog; flattened, the planner may scan the whole history instead.
    """
    tasks = schema.tasks.alias("task")
    return (
        sa.select(*(tasks.c[key] for key in dict.fromkeys((*_NEEDED, *keys))))
        .where(schema.of_track(tasks, tracks), tasks.c.task_type == task)
        .offset(integer(0))
        .lateral("task_row")
    )


def arrival(
    schema: Schema, tracks: sa.FromClause, row: sa.FromClause, step: Step | sa.CTE
) -> sa.ColumnElement[Any]:
    """When the track came to *step*, as ``state`` takes it: the previous step's completion, else
    the row's creation, else the track's last update."""
    previous: list[sa.ColumnElement[str]]
    if isinstance(step, Step):
        previous = [sa.literal(task) for task in schema.pipeline.previous(step)]
    else:
        previous = [column for column in step.c if column.key.startswith("previous_")]
    fallback = sa.func.coalesce(row.c.created_at, tracks.c.updated_at)
    if not previous:
        return fallback
    before = schema.tasks.alias("before")
    completed = (
        sa.select(sa.func.max(before.c.completed_at))
        .where(schema.of_track(before, tracks), before.c.task_type.in_(previous))
        .scalar_subquery()
    )
    return sa.func.coalesce(completed, fallback)


def _listed(
    tracks: sa.FromClause,
    row: sa.FromClause,
    row_keys: Iterable[str],
    **columns: sa.ColumnElement[Any],
) -> sa.Select[Any]:
    """track_id, title and stage of *tracks* (but for what *columns* says), *columns*, and the
    *row*'s columns that *row_keys* names, each as ``row_KEY``."""
    of_track = {"track_id": tracks.c.id, "title": tracks.c.title, "stage": tracks.c.stage}
    named = of_track | columns | {f"row_{key}": row.c[key] for key in row_keys}
    return sa.select(*(column.label(name) for name, column in named.items()))


def standing(
    schema: Schema, step: Step, row_keys: Iterable[str] = (), whole: bool = False
) -> sa.Select[Any]:
    """The tracks at *step*'s stage: track_id, title, stage, task_type, state, arrived_at, and
    those of the task row's columns that *row_keys* names, each as ``row_KEY``.

    With *whole*, Postgres may join whole tables for it: several times as fast where much of them
    is wanted, but no longer sure to cost as the backlog does.
    """
    tracks: sa.FromClause = schema.tracks.alias("track")
    row: sa.FromClause = schema.tasks.alias("task_row")
    arrived_at: sa.ColumnElement[Any]
    previous = schema.pipeline.previous(step)
    if whole and len(previous) == 1:
        tracks = _tracks_led(schema, step, *previous)
        own = sa.and_(schema.of_track(row, tracks), row.c.task_type == step.task)
        arrived_at = sa.func.coalesce(tracks.c.led_at, row.c.created_at, tracks.c.updated_at)
    else:
        row, own = _task_row(schema, tracks, step.task, row_keys), sa.true()
        arrived_at = arrival(schema, tracks, row, step)
    found = _listed(
        tracks,
        row,
        row_keys,
        task_type=sa.literal(step.task),
        state=state(row, step),
        arrived_at=arrived_at,
    )
    joined = tracks.join(row, own, isouter=True)
    return found.select_from(joined).where(tracks.c.stage == step.stage)


def _tracks_led(schema: Schema, step: Step, previous: str) -> sa.FromClause:
    """The tracks at *step*'s stage, and when their task *previous* was completed (led_at).

    OFFSET 0: the planner takes few of them to be in any one state, and would look the rest up.
    """
    tracks, before = schema.tracks.alias("track"), schema.tasks.alias("before")
    led = sa.and_(schema.of_track(before, tracks), before.c.task_type == previous)
    columns = [tracks.c[key].label(key) for key in ("id", "title", "stage", "updated_at")]
    return (
        sa.select(*columns, before.c.completed_at.label("led_at"))
        .select_from(tracks.join(before, led, isouter=True))
        .where(tracks.c.stage == step.stage)
        .offset(integer(0))
        .subquery("track")
    )


@lru_cache(maxsize=16)  # one object: a statement can have it in several places
def steps(schema: Schema) -> sa.CTE:
    """The steps as a table: position, stage, task_type, stuck_after, and previous_0 and so on, as
    many as tasks lead to one stage (an array instead would hide their number from the planner)."""
    stage, task_type = schema.tracks.c.stage.type, schema.tasks.c.task_type.type
    leading = [schema.pipeline.previous(step) for step in schema.pipeline.steps]
    most = max(map(len, leading))
    rows = [
        (i, step.stage, step.task, interval(step.stuck_after), *tasks, *[sa.null()] * missing)
        for i, (step, tasks) in enumerate(zip(schema.pipeline.steps, leading, strict=True))
        for missing in [most - len(tasks)]
    ]
    return (
        sa.values(
            sa.column("position", sa.Integer()),
            sa.column("stage", stage),
            sa.column("task_type", task_type),
            sa.column("stuck_after", sa.Interval()),
            *(sa.column(f"previous_{n}", task_type) for n in range(most)),
            name="steps",
        )
        .data(rows)
        .cte("step")
    )


def standing_anywhere(schema: Schema, row_keys: Iterable[str] = ()) -> sa.Select[Any]:
    """The tracks at any step's stage, once for each task that is due there: position (in
    ``steps``), state, arrived_at, and ``row_KEY`` as ``standing`` has it.

    OFFSET 0 has these computed as a track is read, while its rows are still at hand.
    """
    step, tracks = steps(schema), schema.tracks.alias("track")
    row = _task_row(schema, tracks, step.c.task_type, row_keys)
    at_steps = tracks.c.stage.in_([s.stage for s in schema.pipeline.steps])  # for partial indexes
    at_step = step.join(tracks, sa.and_(tracks.c.stage == step.c.stage, at_steps))
    return (
        sa.select(
            step.c.position,
            state(row, step).label("state"),
            arrival(schema, tracks, row, step).label("arrived_at"),
            *(row.c[key].label(f"row_{key}") for key in row_keys),
        )
        .select_from(at_step.join(row, sa.true(), isouter=True))
        .offset(integer(0))
    )


def is_orphan(
    schema: Schema, row: sa.FromClause, step: Step, stage: sa.ColumnElement[str]
) -> sa.ColumnElement[bool]:
    """True for a pending or failed row of *step* whose track stands at another *stage*, or none."""
    return sa.and_(
        schema.ours(row),
        row.c.task_type == step.task,
        row.c.status.in_(OPEN),
        stage.is_distinct_from(step.stage),
    )


def orphaned(schema: Schema, step: Step, row_keys: Iterable[str] = ()) -> sa.Select[Any]:
    """The orphans of *step*, with the columns of ``standing`` but for state."""
    row, tracks = schema.tasks.alias("task"), schema.tracks.alias("track")
    found = _listed(
        tracks,
        row,
        row_keys,
        track_id=row.c.track_id,
        task_type=sa.literal(step.task),
        arrived_at=arrival(schema, tracks, row, step),
    )
    joined = row.outerjoin(tracks, schema.of_track(row, tracks))
    return found.select_from(joined).where(is_orphan(schema, row, step, tracks.c.stage))


def history(
    schema: Schema, track: str, step: Step | None, row_keys: Iterable[str] = ()
) -> sa.Select[Any]:
    """What one track has of *step*: its task row, or its place there without one; for None, its
    rows of tasks that the pipeline does not have. The columns are those of ``standing``, state
    null where the track stands elsewhere."""
    row, tracks = schema.tasks.alias("task"), schema.tracks.alias("track")
    columns: dict[str, sa.ColumnElement[Any]]
    if step is None:
        stands_here: sa.ColumnElement[bool] = sa.false()
        of_step: sa.ColumnElement[bool] = row.c.task_type.not_in(schema.pipeline.tasks_due)
        no_state = sa.cast(sa.null(), sa.Text())
        columns = {"task_type": row.c.task_type, "state": no_state, "arrived_at": row.c.created_at}
    else:
        stands_here = tracks.c.stage == step.stage
        of_step = row.c.task_type == step.task
        columns = {
            "task_type": sa.literal(step.task),
            "state": sa.case((stands_here, state(row, step))),
            "arrived_at": arrival(schema, tracks, row, step),
        }
    joined = tracks.outerjoin(row, sa.and_(schema.of_track(row, tracks), of_step))
    there = sa.and_(tracks.c.id == track, sa.or_(stands_here, row.c.id.is_not(None)))
    return _listed(tracks, row, row_keys, **columns).select_from(joined).where(there)
