"""History as visits: when each track came to a step and when it left again, from what rows tell.

Which tracks stand at a step now is ``states.standing``'s to say, arrival included; ``departed``
finds the others. The database keeps the last of what happened to a row several times (attempts, a
task done anew), so a track has at most one visit to a step.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from queue_insights.buckets import TIME
from queue_insights.schema import Schema
from queue_insights.states import integer, standing_anywhere

GONE = ("drifted", "skipped")  # states of tracks that stand at a step with nothing left to do there
_KEYS = ("status", "created_at", "last_attempt_at", "updated_at", "completed_at")

Time = sa.ColumnElement[datetime]


def position(schema: Schema, task_type: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    """The step of a task, counted from 0 in pipeline order."""
    return sa.case({s.task: i for i, s in enumerate(schema.pipeline.steps)}, value=task_type)


def leads(schema: Schema) -> sa.FromClause:
    """Each task (``before``) and the position of a step to which its completion leads."""
    pipeline = schema.pipeline
    pairs = [(task, i) for i, step in enumerate(pipeline.steps) for task in pipeline.previous(step)]
    columns = sa.column("before", sa.Text), sa.column("position", sa.Integer)
    return sa.values(*columns, name="leads").data(pairs or [("", -1)])


def previous_completion(schema: Schema, visit: sa.FromClause) -> Time:
    """When the tasks before the step at ``visit.position`` were completed for the track
    ``visit.id``, the latest of them; asks the table, so it is for few rows only."""
    before, lead = schema.tasks.alias("before"), leads(schema)
    return (
        sa.select(sa.func.max(before.c.completed_at))
        .select_from(before.join(lead, lead.c.before == before.c.task_type))
        .where(schema.of_track(before, visit), lead.c.position == visit.c.position)
        .correlate(visit)
        .scalar_subquery()
    )


def behind(
    schema: Schema, stage: sa.ColumnElement[str], position: sa.ColumnElement[int]
) -> sa.ColumnElement[bool]:
    """True for a track at *stage* that has not reached the step yet, or was moved back before it;
    never for one at a terminal stage, or at one that the pipeline does not know."""
    pipeline = schema.pipeline
    order = {s: i for i, s in enumerate(pipeline.stages) if s not in pipeline.terminal}
    of_step = {i: order[step.stage] for i, step in enumerate(pipeline.steps)}
    earlier = sa.case(order, value=stage) < sa.case(of_step, value=position)
    return sa.func.coalesce(earlier, False)


def present(schema: Schema) -> sa.Select[Any]:
    """The visits that go on: position, state, arrived_at, taken_at (when the attempt in hand
    began; null where none is)."""
    track = standing_anywhere(schema, ("last_attempt_at", "updated_at")).subquery()
    began = sa.func.coalesce(track.c.row_last_attempt_at, track.c.row_updated_at)
    in_hand = track.c.state.in_(["running", "stuck"])
    taken_at = _by_now(sa.func.greatest(track.c.arrived_at, began))
    return sa.select(
        track.c.position,
        track.c.state,
        _by_now(track.c.arrived_at).label("arrived_at"),
        sa.case((in_hand, taken_at)).label("taken_at"),
    ).where(track.c.state.not_in(GONE))


def departed(schema: Schema, start: Time) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """The visits that ended since *start*: position, arrived_at, taken_at, departed_at, completed
    (or the track left without), unclear (null, ``undated`` or ``reprocessed``), run_ms.

    - arrived_at: as ``states.arrival`` has it; before *start* for those who came before.
    - departed_at: when the task completed. An *undated* row (completed, without completed_at) is
      taken to have ended with its last attempt, by its duration, else at its last update. Where a
      task was completed before the track came (the one before it was *reprocessed*), the visit is
      taken to have no length. Who left without completing left when its row was skipped, else
      when it got a row at a later step, else at the track's last update.
    - taken_at: when the last attempt began; null where that is unknown, or not between the two.

    A track that stands before the step, or has only an untouched row there that no completion led
    to, has not been there.

    In two parts: the bulk, which parallel workers can join and count, and those that need a look.
    """
    bulk = _explained(schema, start).subquery("explained")
    odd = _unexplained(schema, start).subquery("unexplained")
    return _visits(bulk, start), _visits(odd, start)


def _visits(visit: sa.FromClause, start: Time) -> sa.Select[Any]:
    departed_at = _by_now(sa.func.greatest(visit.c.ended_at, visit.c.arrived_at))
    at_work = visit.c.last_attempt_at.between(visit.c.arrived_at, departed_at)
    unclear = sa.case(
        (sa.not_(visit.c.completed), sa.null()),
        (visit.c.undated, sa.literal("undated", sa.Text)),
        (visit.c.ended_at < visit.c.arrived_at, "reprocessed"),
    )
    return sa.select(
        visit.c.position,
        _by_now(visit.c.arrived_at).label("arrived_at"),
        sa.case((sa.and_(visit.c.completed, at_work), visit.c.last_attempt_at)).label("taken_at"),
        departed_at.label("departed_at"),
        visit.c.completed,
        unclear.label("unclear"),
        visit.c.run_ms,
    ).where(departed_at >= start)


def _by_now(time: sa.ColumnElement[Any]) -> Time:
    """*time*, or now if a worker's clock is ahead."""
    return sa.func.least(time, sa.func.now(), type_=TIME)


def _explained(schema: Schema, start: Time) -> sa.Select[Any]:
    """Completed rows with, not after it, the completion that led to them (at the first step, their
    creation): nearly all there is."""
    own, led, same, explained = _pairs(schema, start)
    arrived_at = sa.func.coalesce(led.c.led_at, own.c.created_at)
    return (
        sa.select(
            own.c.position,
            arrived_at.label("arrived_at"),
            own.c.completed_at.label("ended_at"),
            sa.true().label("completed"),
            sa.false().label("undated"),
            own.c.last_attempt_at,
            own.c.run_ms,
        )
        .select_from(own.join(led, same, isouter=True))
        .where(own.c.completed_at >= start, explained)
    )


def _pairs(
    schema: Schema, start: Time
) -> tuple[sa.FromClause, sa.FromClause, sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """The rows, the completions that led to steps, which of these belong together, and which rows
    they explain."""
    own, led = _rows(schema, start), _completions(schema, start)
    same = sa.and_(own.c.id == led.c.id, own.c.position == led.c.position)
    steps = enumerate(schema.pipeline.steps)
    first = own.c.position.in_([i for i, s in steps if not schema.pipeline.previous(s)])
    made = sa.and_(first, own.c.created_at <= own.c.completed_at)
    led_before = led.c.led_at <= own.c.completed_at
    return own, led, same, sa.and_(own.c.status == "completed", sa.or_(led_before, made))


def _unexplained(schema: Schema, start: Time) -> sa.Select[Any]:
    """All other visits that have ended, with the times that tell when: arrived_at, ended_at."""
    pair = _odd_pairs(schema, start).subquery("pair")
    look = _looked_up(schema, pair, start)
    led_at = sa.func.coalesce(pair.c.led_at, look.c.led_at)
    completed = sa.func.coalesce(sa.or_(pair.c.status == "completed", look.c.done_before), False)
    run = pair.c.run_ms * sa.literal_column("interval '1 millisecond'", sa.Interval)
    done_at = sa.func.coalesce(pair.c.completed_at, pair.c.last_attempt_at + run, pair.c.updated_at)
    skipped = sa.func.coalesce(pair.c.status == "skipped", False)
    left_at = sa.func.coalesce(
        sa.case((skipped, pair.c.updated_at)), look.c.moved_at, look.c.updated_at, pair.c.updated_at
    )
    has_been = sa.or_(skipped, led_at.is_not(None), pair.c.last_attempt_at.is_not(None))
    has_left = sa.and_(sa.or_(skipped, look.c.gone), sa.not_(look.c.behind), has_been)
    return (
        sa.select(
            pair.c.position,
            sa.func.coalesce(led_at, pair.c.created_at, look.c.updated_at).label("arrived_at"),
            sa.case((completed, done_at), else_=left_at).label("ended_at"),
            completed.label("completed"),
            sa.and_(pair.c.has_row, pair.c.completed_at.is_(None)).label("undated"),
            pair.c.last_attempt_at,
            pair.c.run_ms,
        )
        .select_from(pair.join(look, sa.true()))
        .where(sa.or_(completed, has_left))
    )


def _looked_up(schema: Schema, pair: sa.FromClause, start: Time) -> sa.FromClause:
    """What the other tables say about a pair: led_at (before *start*), done_before (its row was
    completed before then), updated_at of the track, behind (it stands before the step), gone (it
    stands after it), moved_at (its first row after the step).

    OFFSET 0 makes it one look for each: flattened, each use of a column would look again.
    """
    numbered = dict(enumerate(schema.pipeline.steps))
    own, tracks = schema.tasks.alias("own"), schema.tracks.alias("track")
    of_step = position(schema, own.c.task_type) == pair.c.position
    has_row = sa.exists().where(schema.of_track(own, pair), of_step).correlate(pair)
    due_at = sa.case({i: step.stage for i, step in numbered.items()}, value=pair.c.position)
    before = behind(schema, tracks.c.stage, pair.c.position)
    # Leaving updated the track, so one that has not changed since had left before.
    moved = sa.func.coalesce(tracks.c.updated_at, pair.c.updated_at) >= start
    gone = sa.and_(tracks.c.stage.is_distinct_from(due_at), sa.not_(before), moved)
    ended = sa.or_(gone, pair.c.status.in_(["completed", "skipped"]))
    one = sa.select(integer(1).label("one")).subquery("one")
    return (
        sa.select(
            sa.case((ended, previous_completion(schema, pair))).label("led_at"),
            sa.and_(sa.not_(pair.c.has_row), has_row).label("done_before"),
            tracks.c.updated_at.label("updated_at"),
            before.label("behind"),
            gone.label("gone"),
            sa.case((gone, _moved_at(schema, pair))).label("moved_at"),
        )
        .select_from(one.join(tracks, tracks.c.id == pair.c.id, isouter=True))
        .offset(integer(0))
        .lateral("look")
    )


def _moved_at(schema: Schema, pair: sa.FromClause) -> Time:
    """When the track got its first row at a later stage, after it had come here."""
    later, pipeline = schema.tasks.alias("later"), schema.pipeline
    order = [pipeline.stages.index(step.stage) for step in pipeline.steps]
    stage = sa.case(dict(enumerate(order)), value=pair.c.position)
    of_row = sa.case(dict(zip(pipeline.tasks_due, order, strict=True)), value=later.c.task_type)
    came_before = later.c.created_at >= sa.func.coalesce(pair.c.led_at, pair.c.created_at)
    return (
        sa.select(sa.func.min(later.c.created_at))
        .where(schema.of_track(later, pair), of_row > stage, came_before.is_not(False))
        .correlate(pair)
        .scalar_subquery()
    )


def _odd_pairs(schema: Schema, start: Time) -> sa.Select[Any]:
    """Every (track, step) with a row that is not ``_explained``, or led to by a completion that no
    row followed: id, position, has_row, led_at, and the row's columns."""
    own, led, same, explained = _pairs(schema, start)
    return (
        sa.select(
            sa.func.coalesce(own.c.id, led.c.id).label("id"),
            sa.func.coalesce(own.c.position, led.c.position).label("position"),
            own.c.id.is_not(None).label("has_row"),
            led.c.led_at,
            *(own.c[key] for key in (*_KEYS, "run_ms")),
        )
        .select_from(own.join(led, same, full=True))
        .where(explained.is_not(True))
    )


def _rows(schema: Schema, start: Time) -> sa.FromClause:
    """The rows that are open, or were completed since *start*: id, position, run_ms, _KEYS."""
    row = schema.tasks.alias("task")
    wanted = (
        row.c.completed_at >= start,
        row.c.completed_at.is_(None),
        row.c.status != "completed",
    )
    return (
        sa.select(
            schema.owner(row).label("id"),
            position(schema, row.c.task_type).label("position"),
            *(row.c[key].label(key) for key in _KEYS),
            row.c.processing_duration_ms.label("run_ms"),
        )
        .where(sa.or_(*wanted), schema.of_steps(row))
        .subquery("own")
    )


def _completions(schema: Schema, start: Time) -> sa.FromClause:
    """What completions since *start* led to: id, position (of the step after), led_at."""
    before, lead = schema.tasks.alias("before"), leads(schema)
    id, led_at = schema.owner(before), before.c.completed_at
    query = sa.select(id.label("id"), lead.c.position, led_at.label("led_at"))
    pipeline = schema.pipeline
    if any(len(pipeline.previous(step)) > 1 for step in pipeline.steps):
        latest = sa.func.max(led_at).label("led_at")
        query = sa.select(id.label("id"), lead.c.position, latest).group_by(id, lead.c.position)
    return (
        query.select_from(before.join(lead, lead.c.before == before.c.task_type))
        .where(schema.ours(before), led_at >= start)
        .subquery("led")
    )
