"""What happened at each step in each bucket, counted in one pass over the task table.

Nearly every arrival at a step is a completion of the step before, so these are counted where they
stand, and moved on by one step. Where that goes wrong is found by masks of steps for each track
that anything happened to, and looked up: as a rule that is what waits now, and little else. The
answer is that of ``visits``, which looks closely at every visit and takes twice as long.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from queue_insights import visits
from queue_insights.buckets import Spans
from queue_insights.pipeline import Step
from queue_insights.schema import Schema
from queue_insights.states import MOVING, integer, state
from queue_insights.visits import behind, position, previous_completion

KINDS = ("arrivals", "completions", "failures")


def events(schema: Schema, buckets: Spans, moving: bool = False) -> sa.CompoundSelect[Any]:
    """Counts (kind, position, bucket, n); there may be several about one bucket of a step, and
    some take away.

    With *moving*, arrivals are only those that were completed or still move: not those that left
    otherwise, nor those that wait for somebody to mend them.
    """
    seen = _seen(schema, buckets)
    keys = [seen.c[key] for key in ("position", "done", "failed", "came")]
    tally = sa.select(*keys, sa.func.count().label("n")).group_by(*keys).cte("tally")
    found = [
        event("completions", tally.c.position, tally.c.done, tally.c.n),
        event("failures", tally.c.position, tally.c.failed, tally.c.n),
    ]
    stages = [step.stage for step in schema.pipeline.steps]
    if len(set(stages)) < len(stages):  # an arrival may be the latest of several completions
        return sa.union_all(*found, *_of_visits(schema, buckets, moving))
    return sa.union_all(
        *found,
        event("arrivals", tally.c.position, tally.c.came, tally.c.n),
        event("arrivals", tally.c.position + 1, tally.c.done, tally.c.n),
        *_corrections(schema, buckets, seen, moving),
    )


def event(
    kind: str,
    position: sa.ColumnElement[int],
    bucket: sa.ColumnElement[int],
    n: sa.ColumnElement[int],
) -> sa.Select[Any]:
    """A record of ``events``."""
    columns: list[sa.ColumnElement[Any]] = [
        sa.literal(kind, sa.Text).label("kind"),
        position.label("position"),
        bucket.label("bucket"),
        n.label("n"),
    ]
    return sa.select(*columns)


def _of_visits(schema: Schema, buckets: Spans, moving: bool) -> Iterable[sa.Select[Any]]:
    for query in (visits.present(schema), *visits.departed(schema, buckets.start)):
        visit = query.subquery("visit")
        found = event("arrivals", visit.c.position, buckets.number(visit.c.arrived_at), integer(1))
        if moving:
            found = found.where(
                visit.c.completed if "completed" in visit.c else visit.c.state.in_(MOVING)
            )
        yield found


def _seen(schema: Schema, buckets: Spans) -> sa.CTE:
    """The rows to which anything happened: id, position, completed, and the buckets of done,
    failed, made, and came (made, where that is sure to be the arrival), null if before.

    In order of id: parallel workers sort at hardly any cost, and the masks need it.
    """
    row, start = schema.tasks.alias("task"), buckets.start
    failed = sa.and_(row.c.status == "failed", row.c.last_attempt_at >= start)
    made, done = row.c.created_at >= start, row.c.completed_at >= start
    completed = sa.func.coalesce(row.c.status == "completed", False)
    first = row.c.task_type == schema.pipeline.steps[0].task

    def bucket(name: str, when: sa.ColumnElement[bool], key: str) -> sa.ColumnElement[int]:
        return sa.case((when, buckets.number(row.c[key]))).label(name)

    return (
        sa.select(
            schema.owner(row).label("id"),
            position(schema, row.c.task_type).label("position"),
            completed.label("completed"),
            bucket("done", done, "completed_at"),
            bucket("failed", failed, "last_attempt_at"),
            bucket("made", made, "created_at"),
            bucket("came", sa.and_(made, completed, first), "created_at"),
        )
        .where(sa.or_(done, made, failed), schema.of_steps(row))
        .order_by(sa.column("id"))
        .cte("seen")
    )


def _corrections(
    schema: Schema, buckets: Spans, seen: sa.CTE, moving: bool
) -> Iterable[sa.Select[Any]]:
    """The arrivals that are not as ``seen`` suggests."""
    odd = _odd(seen)
    numbers = [(i,) for i in range(len(schema.pipeline.steps))]
    step = sa.values(sa.column("position", sa.Integer), name="step").data(numbers)
    bit = _bit(step.c.position)
    pair = (
        sa.select(
            odd.c.id,
            step.c.position,
            (odd.c.led.bitwise_and(bit) != 0).label("led"),
            (odd.c.made.bitwise_and(bit) != 0).label("made"),
        )
        .select_from(odd.join(step, odd.c.led.bitwise_or(odd.c.made).bitwise_and(bit) != 0))
        .cte("pair")
    )
    came_not, came = _not_there(schema, pair, moving), _unled(schema, pair, buckets, moving)
    for n, query in ((-1, came_not), (1, came)):
        found = query.lateral("found")
        bucket = buckets.number(found.c.arrived_at)
        change = event("arrivals", pair.c.position, bucket, integer(n))
        yield change.select_from(pair.join(found, sa.true()))
    for i, due in enumerate(schema.pipeline.steps):
        track = _without_row(schema, due, buckets).subquery("track")
        yield event("arrivals", integer(i), buckets.number(track.c.updated_at), integer(1))


def _bit(position: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.literal_column("CAST(1 AS bigint)", sa.BigInteger).bitwise_lshift(position)


def _odd(seen: sa.CTE) -> sa.CTE:
    """Each track with the steps, as masks, that a completion led to and no completion followed
    (led), and those that have a new row to which nothing led (made)."""

    def mask(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.bit_or(_bit(seen.c.position)).filter(condition), 0)

    done = seen.c.done.is_not(None)
    led = mask(done).bitwise_lshift(1)
    made = mask(sa.and_(seen.c.made.is_not(None), seen.c.came.is_(None)))
    ended = mask(sa.and_(done, seen.c.completed))
    return (
        sa.select(
            seen.c.id,
            led.bitwise_and(ended.bitwise_not()).label("led"),
            made.bitwise_and(led.bitwise_not()).label("made"),
        )
        .group_by(seen.c.id)
        .cte("odd")
    )


def _not_there(schema: Schema, pair: sa.FromClause, moving: bool) -> sa.Select[Any]:
    """When the track came by the completion that led to the step, if it is not there for all that:
    it stands before it (or does not move there), and the task has no row or an open one."""
    track, own = schema.tracks.alias("track"), schema.tasks.alias("own")
    done = sa.exists().where(
        schema.of_track(own, track),  # not the pair: it is asked last, for who stands before
        position(schema, own.c.task_type) == pair.c.position,
        own.c.status == "completed",
    )
    done_there = sa.select(done.correlate(track, pair)).scalar_subquery()
    return (
        sa.select(previous_completion(schema, pair).label("arrived_at"))
        .select_from(track)
        .where(
            pair.c.led,
            track.c.id == pair.c.id,
            sa.not_(_moves(schema, track, pair))
            if moving
            else behind(schema, track.c.stage, pair.c.position),
            done_there.is_(False),
        )
        .offset(integer(0))  # looks for each pair, where a join might read the table
    )


def _moves(schema: Schema, track: sa.FromClause, pair: sa.FromClause) -> sa.ColumnElement[bool]:
    """True for a track that stands at the pair's step and waits there, or is worked on."""
    row = schema.tasks.alias("mine")
    found = []
    for i, step in enumerate(schema.pipeline.steps):
        own = sa.and_(schema.of_track(row, track), row.c.task_type == step.task)
        what = sa.select(state(row, step)).where(own).correlate(track).scalar_subquery()
        at_step = sa.and_(pair.c.position == i, track.c.stage == step.stage)
        found.append(sa.and_(at_step, sa.func.coalesce(what, "missing").in_(MOVING)))
    return sa.func.coalesce(sa.or_(*found), False)


def _unled(schema: Schema, pair: sa.FromClause, buckets: Spans, moving: bool) -> sa.Select[Any]:
    """When the row was made that brought the track to the step, no completion having led there."""
    track, row = schema.tracks.alias("track"), schema.tasks.alias("row")
    due_at = {i: step.stage for i, step in enumerate(schema.pipeline.steps)}
    standing = track.c.stage == sa.case(due_at, value=pair.c.position)
    worked_on = sa.or_(row.c.last_attempt_at.is_not(None), row.c.status == "skipped")
    is_open = sa.and_(
        sa.or_(sa.func.coalesce(standing, False), worked_on),
        sa.not_(behind(schema, track.c.stage, pair.c.position)),
    )
    return (
        sa.select(row.c.created_at.label("arrived_at"))
        .select_from(row.join(track, schema.of_track(row, track), isouter=True))
        .where(
            pair.c.made,
            schema.of_track(row, pair),
            position(schema, row.c.task_type) == pair.c.position,
            row.c.created_at >= buckets.start,
            sa.or_(row.c.status == "completed", _moves(schema, track, pair) if moving else is_open),
            previous_completion(schema, pair).is_(None),
        )
        .offset(integer(0))
    )


def _without_row(schema: Schema, step: Step, buckets: Spans) -> sa.Select[Any]:
    """The tracks at the step that have no row and no completion that led them there."""
    track, row = schema.tracks.alias("track"), schema.tasks.alias("row")
    previous = schema.pipeline.previous(step)

    def has(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        found = sa.exists().where(schema.of_track(row, track), *conditions)
        # As a value, not a join: a join might read the whole table.
        return sa.select(found.correlate(track)).scalar_subquery()

    led = has(row.c.task_type.in_(previous), row.c.completed_at.is_not(None))
    return sa.select(track.c.updated_at).where(
        track.c.stage == step.stage,
        track.c.updated_at >= buckets.start,
        *([led.is_(False)] if previous else []),
        has(row.c.task_type == step.task).is_(False),
    )
