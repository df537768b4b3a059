"""What went through the queue and when, as one SQL statement each: throughput, durations, flow.

As in ``queries``, each function takes the reflected schema, and the moment that is now, and
returns a Select; the frames that they make are described on the methods of ``Queue``.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from queue_insights import arrivals, visits
from queue_insights.buckets import Buckets, constant, edges, length
from queue_insights.queries import Query, backlog, count, seconds
from queue_insights.schema import Schema
from queue_insights.states import integer

PERCENTS = (50, 90, 99)
UNCLEAR = ("undated", "reprocessed")


def throughput(
    schema: Schema,
    now: datetime,
    since: str = "7D",
    bucket: str = "1h",
    zone: str = "UTC",
    task: str | None = None,
) -> Query:
    """Arrivals, completions and failures per bucket and step."""
    buckets = Buckets(edges(now, since, bucket, zone))
    grid = _grid(schema, buckets, arrivals.events(schema, buckets), arrivals.KINDS, task)
    return sa.select(
        grid.c.bucket, grid.c.stage, grid.c.task_type, *(grid.c[kind] for kind in arrivals.KINDS)
    ).order_by(grid.c.bucket, grid.c.position)


def durations(schema: Schema, now: datetime, since: str = "7D", task: str | None = None) -> Query:
    """Percentiles of run and waiting times per step, and the age of the oldest that waits."""
    start = constant(now - length(since, "since"))
    visit = sa.union_all(*visits.departed(schema, start)).subquery("visit")
    waited = sa.case((visit.c.unclear.is_(None), seconds(visit.c.taken_at - visit.c.arrived_at)))
    times = {"run": visit.c.run_ms / sa.literal_column("1000.0", sa.Double), "waiting": waited}
    measured = (
        sa.select(
            visit.c.position,
            sa.func.count().label("completions"),
            *(
                sa.func.percentile_cont(percent / 100)
                .within_group(time)
                .label(f"{name}_p{percent}_seconds")
                for name, time in times.items()
                for percent in PERCENTS
            ),
        )
        .where(visit.c.completed)
        .group_by(visit.c.position)
        .subquery("measured")
    )
    step, now_there = steps_table(schema, task), backlog(schema).subquery("now_there")
    joined = step.join(now_there, now_there.c.task_type == step.c.task_type)
    return (
        sa.select(
            step.c.stage,
            step.c.task_type,
            count(sa.func.coalesce(measured.c.completions, 0)).label("completions"),
            *(column for column in measured.c if column.name.endswith("_seconds")),
            now_there.c.waiting,
            now_there.c.oldest_waiting_seconds,
        )
        .select_from(joined.join(measured, measured.c.position == step.c.position, isouter=True))
        .order_by(step.c.position)
    )


def flow(
    schema: Schema,
    now: datetime,
    since: str = "60D",
    bucket: str = "1h",
    zone: str = "UTC",
    task: str | None = None,
) -> Query:
    """Arrivals and departures per bucket and step, and how many were there as it began: reckoned
    back from how many are there now, which is sure."""
    buckets = Buckets(edges(now, since, bucket, zone))
    present = visits.present(schema).cte("present")
    kinds = ("arrivals", "taken", "departures", "left", *UNCLEAR)
    grid = _grid(schema, buckets, _events(schema, buckets, present), kinds, task)
    there = (
        sa.select(
            present.c.position,
            sa.func.count().label("depth"),
            sa.func.count().filter(present.c.taken_at.is_(None)).label("waiting"),
        )
        .group_by(present.c.position)
        .subquery("there")
    )

    def at_start(name: str, gone: str) -> sa.ColumnElement[int]:
        since_then = sa.func.sum(grid.c.arrivals - grid.c[gone]).over(
            partition_by=grid.c.position, order_by=grid.c.bucket.desc()
        )
        return count(sa.func.coalesce(there.c[name], 0) - since_then).label(name)

    return (
        sa.select(
            *(grid.c[name] for name in ("bucket", "stage", "task_type", "arrivals")),
            *(grid.c[name] for name in ("departures", "left")),
            at_start("depth", "departures"),
            at_start("waiting", "taken"),
            *(grid.c[name] for name in UNCLEAR),
        )
        .select_from(grid.join(there, there.c.position == grid.c.position, isouter=True))
        .order_by(grid.c.bucket, grid.c.position)
    )


def flow_averages(
    schema: Schema, now: datetime, since: str = "60D", task: str | None = None
) -> Query:
    """Per step: how many were there on average, how fast they came, how long they stayed."""
    span = length(since, "since")
    start, long = constant(now - span), sa.literal(span.total_seconds(), sa.Double)
    parts = [_totals(gone, start) for gone in visits.departed(schema, start)]
    total = sa.union_all(*parts, _totals(visits.present(schema), start)).subquery("total")
    sums = (
        sa.select(
            total.c.position,
            *(
                sa.func.sum(column).label(column.name)
                for column in total.c
                if column.name != "position"
            ),
        )
        .group_by(total.c.position)
        .subquery("sums")
    )
    step = steps_table(schema, task)

    def known(name: str) -> sa.ColumnElement[Any]:
        return sa.func.coalesce(sums.c[name], 0)

    counts = ("arrivals", "departures", "left", *UNCLEAR)
    averages = {
        "mean_depth": known("there") / long,
        "arrivals_per_hour": known("arrivals") / long * 3600,
        "mean_stay_seconds": sums.c.there / sa.func.nullif(sums.c.arrivals, 0),
        "measured_stay_seconds": sums.c.stayed / sa.func.nullif(sums.c.measured, 0),
    }
    return (
        sa.select(
            step.c.stage,
            step.c.task_type,
            *(count(known(name)).label(name) for name in counts),
            *(sa.cast(value, sa.Double).label(name) for name, value in averages.items()),
        )
        .select_from(step.join(sums, sums.c.position == step.c.position, isouter=True))
        .order_by(step.c.position)
    )


def _totals(visits: sa.Select[Any], start: sa.ColumnElement[datetime]) -> sa.Select[Any]:
    """Of visits that ended, or that go on, per step: counts, seconds spent there since *start*,
    and how many of those whose stay is known stayed for how long altogether."""
    visit = visits.subquery("visit")
    none = sa.literal_column("0", sa.BigInteger)
    came = sa.func.greatest(visit.c.arrived_at, start)
    columns: dict[str, sa.ColumnElement[Any]] = {
        "arrivals": sa.func.count().filter(visit.c.arrived_at >= start),
        **dict.fromkeys(("departures", "left", *UNCLEAR, "measured"), none),
        "there": sa.func.sum(seconds(sa.func.now() - came)),
        "stayed": sa.literal_column("0", sa.Double),
    }
    if "departed_at" in visit.c:
        stay = seconds(visit.c.departed_at - visit.c.arrived_at)
        known = visit.c.unclear.is_(None)
        columns |= {
            "departures": sa.func.count(),
            "left": sa.func.count().filter(sa.not_(visit.c.completed)),
            **{name: sa.func.count().filter(visit.c.unclear == name) for name in UNCLEAR},
            "measured": sa.func.count().filter(known),
            "there": sa.func.sum(seconds(visit.c.departed_at - came)),
            "stayed": sa.func.coalesce(sa.func.sum(stay).filter(known), 0.0),
        }
    named = [column.label(name) for name, column in columns.items()]
    return sa.select(visit.c.position, *named).group_by(visit.c.position)


def _events(schema: Schema, buckets: Buckets, present: sa.CTE) -> sa.CompoundSelect[Any]:
    """What happened in each bucket, counted: kind, position, bucket, n."""

    def event(kind: str, of: sa.FromClause, when: str | None = None) -> sa.Select[Any]:
        return arrivals.event(kind, of.c.position, of.c[when or kind], of.c.n)

    here = sa.select(
        present.c.position,
        buckets.number(present.c.arrived_at).label("arrivals"),
        buckets.number(present.c.taken_at).label("taken"),
        integer(1).label("n"),
    ).subquery("here")
    found = [event("arrivals", here), event("taken", here)]
    for part, query in enumerate(visits.departed(schema, buckets.start)):
        gone = query.subquery("gone")
        taken_at = sa.func.coalesce(gone.c.taken_at, gone.c.departed_at)
        keys = [
            gone.c.position,
            buckets.number(gone.c.arrived_at).label("arrivals"),
            buckets.number(taken_at).label("taken"),
            buckets.number(gone.c.departed_at).label("departures"),
            gone.c.completed,
            gone.c.unclear,
        ]
        tally = sa.select(*keys, sa.func.count().label("n")).group_by(*keys).cte(f"tally_{part}")
        found += [event(kind, tally) for kind in ("arrivals", "taken", "departures")]
        found.append(event("left", tally, "departures").where(sa.not_(tally.c.completed)))
        found += [
            event(kind, tally, "departures").where(tally.c.unclear == kind) for kind in UNCLEAR
        ]
    return sa.union_all(*found)


def _grid(
    schema: Schema,
    buckets: Buckets,
    events: sa.CompoundSelect[Any],
    kinds: Sequence[str],
    task: str | None,
) -> sa.Subquery:
    """A record for every bucket and step: bucket (its start), position, stage, task_type, and the
    sum of the events (kind, position, bucket, n) of each kind."""
    event = events.subquery("event")
    sums = (
        sa.select(
            event.c.position,
            event.c.bucket,
            *(sa.func.sum(event.c.n).filter(event.c.kind == kind).label(kind) for kind in kinds),
        )
        .group_by(event.c.position, event.c.bucket)
        .subquery("sums")
    )
    step, span = steps_table(schema, task), buckets.table().subquery("bucket")
    of_both = sa.and_(sums.c.position == step.c.position, sums.c.bucket == span.c.number)
    return (
        sa.select(
            span.c.start.label("bucket"),
            *step.c,
            *(count(sa.func.coalesce(sums.c[kind], 0)).label(kind) for kind in kinds),
        )
        .select_from(step.join(span, sa.true()).join(sums, of_both, isouter=True))
        .subquery("grid")
    )


def steps_table(schema: Schema, task: str | None) -> sa.FromClause:
    """The steps as rows: position, stage, task_type. Raises InputError for an unknown *task*."""
    wanted = schema.pipeline.select(task)
    rows = [(i, s.stage, s.task) for i, s in enumerate(schema.pipeline.steps) if s in wanted]
    columns = (
        sa.column("position", sa.Integer),
        sa.column("stage", sa.Text),
        sa.column("task_type", sa.Text),
    )
    return sa.values(*columns, name="steps").data(rows)
