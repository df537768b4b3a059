"""The one definition of the state of a (track, step) pair; everything else is built on it.

``standing`` is the relation behind every read: the tracks at a step's stage, each with its task
row (if any), its state, and its arrival. DESIGN section 3 is the source of each condition.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

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


def state(row: sa.FromClause, step: Step) -> sa.ColumnElement[str]:
    """The state of a track at *step*'s stage, whose task row (all null for none) is *row*."""
    return _state(row, interval(step.stuck_after))


def _state(row: sa.FromClause, stuck_after: sa.ColumnElement[timedelta]) -> sa.ColumnElement[str]:
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
        .offset(sa.literal_column("0"))
        .lateral("task_row")
    )


def arrival(
    schema: Schema, tracks: sa.FromClause, row: sa.FromClause, step: Step
) -> sa.ColumnElement[object]:
    """When the track came to *step*: the previous step's completion, else the row's creation,
    else the track's last update."""
    previous = [sa.literal(task) for task in schema.pipeline.previous(step)]
    return _arrival(schema, tracks, row, previous)


def _arrival(
    schema: Schema,
    tracks: sa.FromClause,
    row: sa.FromClause,
    previous: Sequence[sa.ColumnElement[str]],
) -> sa.ColumnElement[object]:
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


def standing(
    schema: Schema, step: Step, row_keys: Iterable[str] = ()
) -> sa.Select[tuple[object, ...]]:
    """The tracks at *step*'s stage: track_id, title, stage, task_type, state, arrived_at, and
    those of the task row's columns that *row_keys* names, each as ``row_KEY``."""
    tracks = schema.tracks.alias("track")
    row = _task_row(schema, tracks, step.task, row_keys)
    return (
        sa.select(
            tracks.c.id.label("track_id"),
            tracks.c.title.label("title"),
            tracks.c.stage.label("stage"),
            sa.literal(step.task).label("task_type"),
            state(row, step).label("state"),
            arrival(schema, tracks, row, step).label("arrived_at"),
            *(row.c[key].label(f"row_{key}") for key in row_keys),
        )
        .select_from(tracks.join(row, sa.true(), isouter=True))
        .where(tracks.c.stage == step.stage)
    )


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


def standing_anywhere(
    schema: Schema, step: sa.CTE, row_keys: Iterable[str] = ()
) -> sa.Select[tuple[object, ...]]:
    """The tracks at any step's stage, once for each task that is due there: position (of the
    *step*), state, arrived_at, and ``row_KEY`` as ``standing`` has it.

    OFFSET 0 has these computed as a track is read, while its rows are still at hand.
    """
    tracks = schema.tracks.alias("track")
    row = _task_row(schema, tracks, step.c.task_type, row_keys)
    previous = [column for column in step.c if column.key.startswith("previous_")]
    at_steps = tracks.c.stage.in_([s.stage for s in schema.pipeline.steps])  # for partial indexes
    return (
        sa.select(
            step.c.position,
            _state(row, step.c.stuck_after).label("state"),
            _arrival(schema, tracks, row, previous).label("arrived_at"),
            *(row.c[key].label(f"row_{key}") for key in row_keys),
        )
        .select_from(
            step.join(tracks, sa.and_(tracks.c.stage == step.c.stage, at_steps)).join(
                row, sa.true(), isouter=True
            )
        )
        .offset(sa.literal_column("0"))
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


def history(
    schema: Schema, track: str, step: Step | None, row_keys: Iterable[str] = ()
) -> sa.Select[tuple[object, ...]]:
    """What one track has of *step*: its task row, or its place there without one; for None, its
    rows of tasks that the pipeline does not have. The columns are those of ``standing``, state
    null where the track stands elsewhere."""
    row, tracks = schema.tasks.alias("task"), schema.tracks.alias("track")
    if step is None:
        stands_here: sa.ColumnElement[bool] = sa.false()
        of_step: sa.ColumnElement[bool] = row.c.task_type.not_in(schema.pipeline.tasks_due)
        now: sa.ColumnElement[str] = sa.cast(sa.null(), sa.Text())
        arrived_at: sa.ColumnElement[object] = row.c.created_at
    else:
        stands_here = tracks.c.stage == step.stage
        of_step = row.c.task_type == step.task
        now = sa.case((stands_here, state(row, step)))
        arrived_at = arrival(schema, tracks, row, step)
    return (
        sa.select(
            tracks.c.id.label("track_id"),
            tracks.c.title.label("title"),
            tracks.c.stage.label("stage"),
            (row.c.task_type if step is None else sa.literal(step.task)).label("task_type"),
            now.label("state"),
            arrived_at.label("arrived_at"),
            *(row.c[key].label(f"row_{key}") for key in row_keys),
        )
        .select_from(tracks.outerjoin(row, sa.and_(schema.of_track(row, tracks), of_step)))
        .where(tracks.c.id == track, sa.or_(stands_here, row.c.id.is_not(None)))
    )


def orphaned(
    schema: Schema, step: Step, row_keys: Iterable[str] = ()
) -> sa.Select[tuple[object, ...]]:
    """The orphans of *step*, with the columns of ``standing`` but for state."""
    row, tracks = schema.tasks.alias("task"), schema.tracks.alias("track")
    return (
        sa.select(
            row.c.track_id.label("track_id"),
            tracks.c.title.label("title"),
            tracks.c.stage.label("stage"),
            sa.literal(step.task).label("task_type"),
            arrival(schema, tracks, row, step).label("arrived_at"),
            *(row.c[key].label(f"row_{key}") for key in row_keys),
        )
        .select_from(row.outerjoin(tracks, schema.of_track(row, tracks)))
        .where(is_orphan(schema, row, step, tracks.c.stage))
    )
