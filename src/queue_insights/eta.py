"""When will it be done: what ``forecast`` needs, out of the database, and its answers as frames."""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from queue_insights import visits
from queue_insights.buckets import TIME, constant
from queue_insights.flow import steps_table
from queue_insights.forecast import forecast_step, pipeline
from queue_insights.queries import Query, count
from queue_insights.schema import Schema
from queue_insights.states import WAITING, standing

HISTORY = timedelta(days=45)  # as far as the forecasts look back, and learn from before that
WIDTH = 300  # seconds: events are fetched as counts of so long, and spread evenly over it
TRACKS = 20_000  # of more, a sample is simulated through the pipeline
MOVING = (*WAITING, "running")  # the others wait for somebody to mend them
KINDS = ("arrivals", "completions")
INTEGERS = postgresql.ARRAY(sa.Integer())


def eta(schema: Schema, now: datetime, task: str | None = None) -> Query:
    """Per step: stage, task_type, waiting, and when tracks came and were completed over the last
    ``HISTORY``: the numbers of the intervals of ``WIDTH`` seconds in which any did, from 0 on, and
    how many, as arrays.

    Who left without completing, or will not move until somebody acts, is left out.
    """
    start = constant(now - HISTORY)
    present = visits.present(schema).cte("present")
    gone = visits.departed(schema, start).cte("gone")
    moving = present.c.state.in_(MOVING)
    event = sa.union_all(
        _counted("arrivals", gone, gone.c.arrived_at, start).where(gone.c.completed),
        _counted("arrivals", present, present.c.arrived_at, start).where(moving),
        _counted("completions", gone, gone.c.departed_at, start).where(gone.c.completed),
    ).subquery("event")
    in_order = (event.c.interval, event.c.n)
    arrays = (
        sa.select(
            event.c.position,
            *(
                sa.func.array_agg(
                    postgresql.aggregate_order_by(sa.cast(event.c[column], sa.Integer), *in_order),
                    type_=INTEGERS,
                )
                .filter(event.c.kind == kind)
                .label(f"{kind}_{column}")
                for kind in KINDS
                for column in ("interval", "n")
            ),
        )
        .group_by(event.c.position)
        .subquery("arrays")
    )
    there = (
        sa.select(
            present.c.position,
            sa.func.count().filter(present.c.state.in_(WAITING)).label("waiting"),
        )
        .group_by(present.c.position)
        .subquery("there")
    )
    step = steps_table(schema, task)
    found = step.join(there, there.c.position == step.c.position, isouter=True)
    return (
        sa.select(
            step.c.stage,
            step.c.task_type,
            count(sa.func.coalesce(there.c.waiting, 0)).label("waiting"),
            *(column for column in arrays.c if column.name != "position"),
        )
        .select_from(found.join(arrays, arrays.c.position == step.c.position, isouter=True))
        .order_by(step.c.position)
    )


def _counted(
    kind: str, visit: sa.CTE, time: sa.ColumnElement[datetime], start: sa.ColumnElement[datetime]
) -> sa.Select[Any]:
    age = sa.extract("epoch", time - start)
    interval = sa.cast(sa.func.floor(age / WIDTH), sa.Integer).label("interval")
    return (
        sa.select(
            visit.c.position,
            sa.literal(kind, sa.Text).label("kind"),
            interval,
            sa.func.count().label("n"),
        )
        .where(time >= start)
        .group_by(visit.c.position, interval)
    )


def step_forecasts(found: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """What ``forecast.forecast_step`` answers to what ``eta`` found: a record per step."""
    moment = pd.Timestamp(now).tz_convert("UTC")
    records = []
    for row in found.to_dict("records"):
        came, done = (_times(row[f"{k}_interval"], row[f"{k}_n"], moment) for k in KINDS)
        answer = forecast_step(came, done, moment, row["waiting"])
        records.append({"stage": row["stage"], "task_type": row["task_type"]} | asdict(answer))
    return _frame(records, ["stage", "task_type", "waiting", "status"])


def _times(
    intervals: list[int] | None, n: list[int] | None, now: pd.Timestamp
) -> "pd.Series[pd.Timestamp]":
    """The times of *n* events in each of the *intervals* up to *now*, spread evenly."""
    counts = np.array(n or [], dtype=np.int64)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    share = (np.arange(counts.sum()) - first + 0.5) / np.repeat(counts, counts)
    seconds = (np.repeat(np.array(intervals or [], dtype=np.int64), counts) + share) * WIDTH
    micros = np.minimum(seconds, HISTORY.total_seconds()) * 1e6
    start = np.datetime64((now - HISTORY).tz_localize(None), "us")
    times = pd.DatetimeIndex(start + micros.astype("timedelta64[us]"), tz="UTC")
    return pd.Series(times)


def _frame(records: list[dict[str, Any]], first: list[str]) -> pd.DataFrame:
    """Records of a forecast, the columns *first* leading, with dtypes whatever their values."""
    frame = pd.DataFrame(records).drop(columns="as_of")
    frame = frame[first + [name for name in frame if name not in first]]
    for name in map(str, frame):
        if name.endswith("_at"):
            frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]")
        elif name.endswith(("_seconds", "_per_hour")):
            frame[name] = frame[name].astype("float64")
        elif name in ("waiting", "inside", "held", "given"):
            frame[name] = frame[name].astype("int64")
        else:
            frame[name] = frame[name].astype("str")
    return frame


def tracks(schema: Schema, now: datetime, one_in: int = 1) -> Query:
    """One record per track that moves through the pipeline now, or went through all of it since
    ``HISTORY`` began; *one_in* so many of them (by a hash of the id).

    Columns: entered_at, due (null once through, else the name of one of the next columns), and for
    step after step completed_0, ... and attempts_0, ... (null where it is not completed).
    """
    start, numbers = constant(now - HISTORY), range(len(schema.pipeline.steps))
    row = schema.tasks.alias("row")
    id, number = visits.owner(schema, row), visits.position(schema, row.c.task_type)
    done = [sa.and_(number == i, row.c.completed_at.is_not(None)) for i in numbers]
    rows = (
        sa.select(
            id.label("id"),
            sa.func.min(row.c.created_at).label("made_at"),
            *(
                sa.func.max(row.c.completed_at).filter(done[i]).label(f"completed_{i}")
                for i in numbers
            ),
            *(sa.func.max(row.c.attempts).filter(done[i]).label(f"attempts_{i}") for i in numbers),
        )
        .where(visits.of_steps(schema, row), row.c.created_at >= start, _sampled(id, one_in))
        .group_by(id)
        .subquery("rows")
    )
    inside = _inside(schema, one_in).subquery("inside")
    names = {i: f"completed_{i}" for i in numbers}
    columns = [column for column in rows.c if column.name not in ("id", "made_at")]
    through = rows.c[names[numbers[-1]]].is_not(None)
    return (
        sa.select(
            sa.func.least(rows.c.made_at, inside.c.arrived_at, type_=TIME).label("entered_at"),
            sa.case(names, value=inside.c.position).label("due"),
            *columns,
        )
        .select_from(rows.join(inside, inside.c.id == rows.c.id, full=True))
        .where(sa.or_(inside.c.position.is_not(None), through))
    )


def _inside(schema: Schema, one_in: int) -> sa.Select[Any]:
    """The tracks that wait or are worked on: id, position (of the first step due), arrived_at."""
    found = []
    for i, step in enumerate(schema.pipeline.steps):
        track = standing(schema, step).subquery("standing")
        number = sa.literal_column(str(i), sa.Integer).label("position")
        moving = sa.select(track.c.track_id.label("id"), number, track.c.arrived_at)
        found.append(moving.where(track.c.state.in_(MOVING), _sampled(track.c.track_id, one_in)))
    track = sa.union_all(*found).subquery("moving")
    first, arrived = sa.func.min(track.c.position), sa.func.min(track.c.arrived_at)
    return sa.select(track.c.id, first.label("position"), arrived.label("arrived_at")).group_by(
        track.c.id
    )


def _sampled(id: sa.ColumnElement[str], one_in: int) -> sa.ColumnElement[bool]:
    return sa.true() if one_in == 1 else sa.func.hashtext(id) % one_in == 0


def through(schema: Schema, now: datetime) -> Query:
    """How many tracks completed the last task since ``HISTORY`` began."""
    row = schema.tasks.alias("row")
    last = row.c.task_type == schema.pipeline.steps[-1].task
    recent = row.c.completed_at >= constant(now - HISTORY)
    return sa.select(sa.func.count().label("tracks")).where(schema.ours(row), last, recent)


def end_to_end_forecast(found: pd.DataFrame, schema: Schema, now: datetime) -> pd.DataFrame:
    """What ``forecast.pipeline`` answers to what ``tracks`` found: one record."""
    steps = [f"completed_{i}" for i in range(len(schema.pipeline.steps))]
    shares = {}
    for i, step in enumerate(steps):
        attempts = found[f"attempts_{i}"].dropna().clip(lower=1)
        shares[step] = 1 - len(attempts) / float(attempts.sum()) if len(attempts) else 0.0
    answer = pipeline(found, steps, pd.Timestamp(now).tz_convert("UTC"), shares)
    return _frame([asdict(answer)], ["inside", "status"])
