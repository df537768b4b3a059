"""The one statement that does a batch: take targets, re-check them under lock, write, record.

Rows that somebody has locked are left for a later turn instead of waited for, so that a batch
neither waits on a worker nor can deadlock with one.

Each target is looked up by itself (LATERAL, and arrays of ids): joined as sets, a planner that
knows how many targets a batch has would read the whole table for each batch.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from queue_insights.actions.definitions import ROW_KEYS, Action, Parameters, condition
from queue_insights.actions.ledger import BATCHES, RUNS, TARGETS
from queue_insights.pipeline import Step
from queue_insights.schema import Schema
from queue_insights.states import is_orphan, state

TURNS = 6  # how often a locked row comes again before it is given up
LOCKED = "locked by another session"
_HASHABLE = (
    *(sa.String, sa.Numeric, sa.Integer, sa.Boolean, sa.Uuid, sa.LargeBinary),
    *(sa.DateTime, sa.Date, sa.Time, postgresql.INTERVAL),
)
_NO_IMAGES: sa.ColumnElement[Any] = sa.null()
OF_RUN = sa.bindparam("of_run", type_=sa.BigInteger())

# What an update may change; undo puts all of these back.
CHANGED = (
    "status",
    "attempts",
    "max_attempts",
    "next_retry_at",
    "completed_at",
    "processing_duration_ms",
)


def statement(schema: Schema, action: Action, parameters: Parameters, step: Step) -> sa.Update:
    """The batch, with binds of_run, of_fence, first and beyond (chunks); returns how many rows it
    did and dropped."""
    todo = _todo(_taken(step))
    if action.kind == "insert":
        changed, before = _insert(schema, step, todo), _NO_IMAGES
    else:
        changed, before = _rewrite(schema, action, parameters, step, todo)
    left = _left(schema, action, parameters, step, todo, changed)
    dropped = sa.select(left.c.id, left.c.reason).where(left.c.reason != LOCKED).cte("dropped")
    done, gone = _number(changed), _number(dropped)
    return (
        sa.update(RUNS)
        .where(RUNS.c.run == OF_RUN)
        .values(
            rows_done=RUNS.c.rows_done + done,
            rows_dropped=RUNS.c.rows_dropped + gone,
            last_batch_at=sa.func.clock_timestamp(),
        )
        .returning(done.label("done"), gone.label("dropped"))
        .add_cte(_again(step, left), _recorded(step, changed, before, dropped))
    )


def _number(rows: sa.CTE) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(rows).scalar_subquery()


def _taken(step: Step) -> sa.CTE:
    first, beyond = (sa.bindparam(name, type_=sa.BigInteger()) for name in ("first", "beyond"))
    return (
        sa.delete(TARGETS)
        .where(TARGETS.c.run == OF_RUN, TARGETS.c.task_type == step.task)
        .where(TARGETS.c.chunk >= first, TARGETS.c.chunk < beyond)
        .returning(TARGETS.c.turn.label("turn"), TARGETS.c.ids, TARGETS.c.arrived)
        .cte("taken")
    )


def _todo(taken: sa.CTE) -> sa.CTE:
    each = (
        sa.func.unnest(taken.c.ids, taken.c.arrived)
        .table_valued(
            sa.column("id", sa.Text), sa.column("arrived", sa.DateTime(timezone=True)), name="each"
        )
        .render_derived()
    )
    return (
        sa.select(each.c.id, each.c.arrived, taken.c.turn)
        .select_from(taken.join(each, sa.true()))
        .cte("todo")
    )


def _insert(schema: Schema, step: Step, todo: sa.CTE) -> sa.CTE:
    tracks, tasks = schema.tracks.alias("track"), schema.tasks
    # FOR UPDATE, so that a track whose row a worker is just inserting counts as locked: the
    # foreign key holds it FOR KEY SHARE. A row that is there already is a conflict.
    free = (
        sa.select(tracks.c.id)
        .where(_same(tracks, todo), tracks.c.stage == step.stage)
        .with_for_update(skip_locked=True)
        .lateral("free")
    )
    locked = sa.select(free.c.id, todo.c.arrived).join_from(todo, free, sa.true()).cte("locked")
    values: dict[str, Any] = {
        **schema.naming(locked.c.id, step.task),
        "status": sa.literal("pending"),
        "attempts": sa.literal(0),
        "max_attempts": sa.literal(step.max_attempts),
        "created_at": locked.c.arrived,
    }
    rows = sa.select(*values.values()).order_by(locked.c.arrived, locked.c.id)
    return (
        postgresql.insert(tasks)
        .from_select(list(values), rows)
        .on_conflict_do_nothing(index_elements=[tasks.c[key] for key in schema.unique_key])
        .returning(
            tasks.c.id.label("row_id"),
            tasks.c.track_id.label("target"),
            digest(schema, tasks).label("digest"),
        )
        .cte("changed")
    )


def _rewrite(
    schema: Schema, action: Action, parameters: Parameters, step: Step, todo: sa.CTE
) -> tuple[sa.CTE, sa.ColumnElement[Any]]:
    tasks, locked = schema.tasks, _locked_rows(schema, action, parameters, step, todo)
    write: sa.Delete | sa.Update = sa.delete(tasks)
    if action.kind == "update":
        values = action.makes(dict(tasks.c.items()), step, parameters)
        write = sa.update(tasks).values({tasks.c[key]: value for key, value in values.items()})
    ids = sa.func.array(sa.select(locked.c.id).scalar_subquery(), type_=sa.ARRAY(tasks.c.id.type))
    changed = (
        write.where(tasks.c.id == sa.any_(ids))
        .returning(
            tasks.c.id.label("row_id"),
            tasks.c.id.label("target"),
            digest(schema, tasks).label("digest"),
        )
        .cte("changed")
    )
    images = sa.select(sa.func.jsonb_agg(locked.c.before)).where(
        locked.c.id.in_(sa.select(changed.c.row_id))
    )
    return changed, images.scalar_subquery()


def _locked_rows(
    schema: Schema, action: Action, parameters: Parameters, step: Step, todo: sa.CTE
) -> sa.CTE:
    """The targets that still qualify, as they were, locked together with their tracks: a track
    that moved at the same moment would change what its row is."""
    tracks, row = schema.tracks.alias("track"), schema.tasks.alias("task")
    named = schema.tasks.alias("named")
    owner = sa.select(named.c.track_id).where(_same(named, todo)).limit(1).lateral("owner")
    parent = (
        sa.select(tracks.c.id, tracks.c.stage)
        .where(tracks.c.id == owner.c.track_id)
        .with_for_update(read=True, skip_locked=True)
        .lateral("parent")
    )
    keys = schema.tasks.c.keys() if action.kind == "delete" else ("id", *CHANGED)
    image = json_object({schema.tasks.c[key].name: imaged(row.c[key]) for key in keys})
    trackless = ~sa.exists().where(schema.of_track(row, tracks)).correlate(row)
    free = (
        sa.select(row.c.id, image.label("before"))
        .where(
            _same(row, todo),
            sa.or_(parent.c.id.is_not(None), trackless),
            _qualifies(schema, action, parameters, step, row, parent.c.stage, todo.c.arrived),
        )
        .with_for_update(skip_locked=True)
        .lateral("free")
    )
    found = todo.join(owner, sa.true()).outerjoin(parent, sa.true()).join(free, sa.true())
    return sa.select(free.c.id, free.c.before).select_from(found).cte("locked")


def _same(row: sa.FromClause, target: sa.FromClause) -> sa.ColumnElement[bool]:
    return row.c.id == sa.cast(target.c.id, row.c.id.type)


def _qualifies(
    schema: Schema,
    action: Action,
    parameters: Parameters,
    step: Step,
    row: sa.FromClause,
    stage: sa.ColumnElement[str],
    arrived: sa.ColumnElement[Any],
) -> sa.ColumnElement[bool]:
    columns = {key: row.c[key] for key in ROW_KEYS}
    if action.of_orphans:
        is_ours = is_orphan(schema, row, step, stage)
        return sa.and_(is_ours, condition(action, parameters, columns, None, arrived))
    at_step = sa.and_(schema.ours(row), row.c.task_type == step.task, stage == step.stage)
    return sa.and_(at_step, condition(action, parameters, columns, state(row, step), arrived))


def _left(
    schema: Schema,
    action: Action,
    parameters: Parameters,
    step: Step,
    todo: sa.CTE,
    changed: sa.CTE,
) -> sa.CTE:
    """The targets that were not changed, and why. Those that this statement's snapshot still sees
    qualify were skipped because somebody had them locked."""
    tracks, row = schema.tracks.alias("track"), schema.tasks.alias("task")
    some_left = _number(changed) < _number(todo)  # asked once, where the rest is asked of each
    rest = (
        sa.select(todo)
        .where(some_left, ~sa.exists().where(sa.cast(changed.c.target, sa.Text) == todo.c.id))
        .cte("rest")
    )
    if action.kind == "insert":
        owner = tracks.c.id == sa.cast(rest.c.id, tracks.c.id.type)
        of_step = sa.and_(schema.of_track(row, tracks), row.c.task_type == step.task)
        found = rest.outerjoin(tracks, owner).outerjoin(row, of_step)
        qualifies = sa.and_(tracks.c.stage == step.stage, row.c.id.is_(None))
    else:
        found = rest.outerjoin(row, _same(row, rest)).outerjoin(
            tracks, schema.of_track(row, tracks)
        )
        qualifies = sa.and_(
            row.c.id.is_not(None),
            _qualifies(schema, action, parameters, step, row, tracks.c.stage, rest.c.arrived),
        )
    is_gone = (tracks if action.kind == "insert" else row).c.id.is_(None)
    misplaced = tracks.c.stage.is_distinct_from(step.stage)
    if action.of_orphans:
        misplaced = sa.not_(misplaced)
    reason = sa.case(
        (sa.and_(qualifies, rest.c.turn < TURNS), LOCKED),
        (qualifies, f"still {LOCKED} after {TURNS} turns"),
        (is_gone, "it is gone"),
        (misplaced, "its track is at " + sa.func.coalesce(tracks.c.stage, "no stage")),
        else_="its row is " + sa.func.coalesce(row.c.status, "without a status"),
    )
    return (
        sa.select(rest.c.id, rest.c.arrived, rest.c.turn, reason.label("reason"))
        .select_from(found)
        .cte("left_over")
    )


def _again(step: Step, left: sa.CTE) -> sa.CTE:
    """Locked targets come again, after all others."""
    last = sa.select(sa.func.max(TARGETS.c.chunk)).where(TARGETS.c.run == OF_RUN).scalar_subquery()
    rows = (
        sa.select(
            OF_RUN,
            last + 1,
            sa.literal(step.task),
            sa.func.max(left.c.turn) + 1,
            sa.func.array_agg(postgresql.aggregate_order_by(left.c.id, left.c.arrived)),
            sa.func.array_agg(postgresql.aggregate_order_by(left.c.arrived, left.c.arrived)),
        )
        .where(left.c.reason == LOCKED)
        .having(sa.func.count() > 0)
    )
    columns = ["run", "chunk", "task_type", "turn", "ids", "arrived"]
    return sa.insert(TARGETS).from_select(columns, rows).cte("again")


def _recorded(step: Step, changed: sa.CTE, before: Any, dropped: sa.CTE) -> sa.CTE:
    """The batch's entry in the ledger, in the same statement as its work."""
    number = (
        sa.select(sa.func.coalesce(sa.func.max(BATCHES.c.batch), 0) + 1)
        .where(BATCHES.c.run == OF_RUN)
        .scalar_subquery()
    )
    rows = sa.select(
        sa.func.array_agg(sa.cast(changed.c.row_id, sa.Text)).label("ids"),
        sa.func.array_agg(changed.c.digest).label("digests"),
    ).subquery("rows")
    listed = json_object({"id": dropped.c.id, "reason": dropped.c.reason})
    why = sa.select(sa.func.jsonb_agg(listed)).select_from(dropped).scalar_subquery()
    entry = sa.select(
        OF_RUN,
        number,
        sa.literal(step.task),
        sa.bindparam("of_fence", type_=sa.BigInteger()),
        sa.func.coalesce(rows.c.ids, sa.cast(postgresql.array([]), sa.ARRAY(sa.Text))),
        sa.func.coalesce(rows.c.digests, sa.cast(postgresql.array([]), sa.ARRAY(sa.BigInteger))),
        before,
        sa.func.coalesce(why, sa.cast(sa.literal("[]"), postgresql.JSONB)),
    )
    columns = ["run", "batch", "task_type", "fence", "ids", "digests", "before", "dropped"]
    return sa.insert(BATCHES).from_select(columns, entry).cte("recorded")


def digest(schema: Schema, row: sa.FromClause) -> sa.ColumnElement[int]:
    """A number that tells whether any column of *row* has changed, but for updated_at, which the
    table's trigger sets. Does not depend on the session's time zone or formats.

    A null hashes to 0. So do numeric zero or NaN with the seeds 1 and 0, and jsonb's {} with any.
    """
    columns = [
        column if isinstance(column.type, _HASHABLE) else sa.cast(column, sa.Text)
        for key, column in row.c.items()
        if key != "updated_at"
    ]
    record = sa.func.row(*columns)
    return sa.func.hash_record_extended(record, sa.literal_column("20"), type_=sa.BigInteger())


def imaged(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """*column* in an image: JSON as text, since a JSON null in an object reads as an SQL null."""
    return sa.cast(column, sa.Text) if isinstance(column.type, sa.JSON) else column


def json_object(columns: Mapping[str, sa.ColumnElement[Any]]) -> sa.ColumnElement[Any]:
    """A jsonb object of *columns* (keys and values alternate in the function's arguments)."""
    parts = [part for name, c in columns.items() for part in (sa.cast(name, sa.Text), c)]
    return sa.func.jsonb_build_object(*parts)
