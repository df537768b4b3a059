"""When will it be done: what ``forecast`` needs, out of the database, and its answers as frames."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from queue_insights import arrivals, visits
from queue_insights.buckets import TIME, Intervals, constant
from queue_insights.errors import InputError
from queue_insights.flow import steps_table
from queue_insights.forecast import backtest, forecast_step, pipeline
from queue_insights.queries import Query, backlog, count, explain, fetch
from queue_insights.schema import Schema
from queue_insights.states import MOVING, integer, standing

HISTORY = timedelta(days=45)  # as far as the forecasts look back
SHORTEST = timedelta(days=14)  # even where much has happened: two of every weekday
ROWS = 1_000_000  # of more in HISTORY (the planner's guess), less is looked at
WIDTH = 300  # seconds: events are fetched as counts of so long, and spread evenly over it
EVENTS = 50_000  # of more at a step, several count as one
TRACKS = 20_000  # of more, a sample is simulated through the pipeline
KINDS = ("arrivals", "completions")

Times: TypeAlias = "pd.Series[pd.Timestamp]"


def eta(
    schema: Schema, now: datetime, task: str | None = None, history: timedelta = HISTORY
) -> Query:
    """Per step: stage, task_type, waiting, moving (with those in work), and when tracks came and
    were completed over the last *history*: the numbers of the intervals of ``WIDTH`` seconds in
    which any did (from 0 on, ``HISTORY`` ago), and how many, as arrays.

    Who left without completing, or will not move until somebody acts, is left out.
    """
    intervals = Intervals(now - HISTORY, now - history, WIDTH)
    event = arrivals.events(schema, intervals, moving=True).subquery("event")
    counted = (
        sa.select(event.c.kind, event.c.position, event.c.bucket, sa.func.sum(event.c.n).label("n"))
        .where(event.c.kind.in_(KINDS), event.c.bucket >= 0)
        .group_by(event.c.kind, event.c.position, event.c.bucket)
        .having(sa.func.sum(event.c.n) > 0)
        .subquery("counted")
    )
    in_order = (counted.c.bucket, counted.c.n)
    arrays = (
        sa.select(
            counted.c.position,
            *(
                sa.func.array_agg(
                    postgresql.aggregate_order_by(sa.cast(column, sa.Integer), *in_order),
                    type_=postgresql.ARRAY(sa.Integer()),
                )
                .filter(counted.c.kind == kind)
                .label(f"{kind}_{name}")
                for kind in KINDS
                for name, column in (("interval", counted.c.bucket), ("n", counted.c.n))
            ),
        )
        .group_by(counted.c.position)
        .subquery("arrays")
    )
    step, there = steps_table(schema, task), backlog(schema).subquery("there")
    known = step.join(there, there.c.task_type == step.c.task_type)
    return (
        sa.select(
            step.c.stage,
            step.c.task_type,
            there.c.waiting,
            count(there.c.waiting + there.c.running).label("moving"),
            *(column for column in arrays.c if column.name != "position"),
        )
        .select_from(known.join(arrays, arrays.c.position == step.c.position, isouter=True))
        .order_by(step.c.position)
    )


def enough(connection: sa.Connection, schema: Schema, now: datetime) -> timedelta:
    """How far back to look: a busy queue says as much in two weeks, at a third of the cost."""
    row = schema.tasks.alias("task")
    recent = sa.select(row.c.id).where(row.c.completed_at >= constant(now - HISTORY))
    rows = explain(connection, recent)["Plan Rows"]
    return max(SHORTEST, min(HISTORY, HISTORY * (ROWS / max(float(rows), 1.0))))


def step_forecasts(found: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """What ``forecast.forecast_step`` answers to what ``eta`` found: a record per step."""
    moment = pd.Timestamp(now).tz_convert("UTC")
    records = []
    for row in found.to_dict("records"):
        unit, came, done = _thinned(row, moment)
        answer = asdict(forecast_step(came, done, moment, -(-row["waiting"] // unit)))
        for name in ("rate", "arrivals", "growth", "needed"):
            rate = answer[f"{name}_per_hour"]
            answer[f"{name}_per_hour"] = None if rate is None else rate * unit
        first = {"stage": row["stage"], "task_type": row["task_type"]}
        records.append(first | answer | {"waiting": row["waiting"]})
    return _frame(records, ["stage", "task_type", "waiting", "status"])


def past_ranges(
    found: pd.DataFrame, now: datetime, levels: Sequence[float], min_waiting: int
) -> pd.DataFrame:
    """What ``forecast.backtest`` makes of what ``eta`` found, step by step at each level."""
    if not len(levels):
        raise InputError("levels is empty: give at least one, such as 0.8")
    moment, parts = pd.Timestamp(now).tz_convert("UTC"), []
    for row in found.to_dict("records"):
        unit, came, done = _thinned(row, moment)
        # Who came before that is there from the beginning.
        before = max(row["moving"] // unit + len(done) - len(came), 0)
        known = pd.concat([came, done])
        early = pd.Series([known.min()] * before if len(known) else [], dtype=came.dtype)
        arrived = pd.concat([early, came], ignore_index=True)
        events = pd.DataFrame({"arrived_at": arrived, "completed_at": done})
        for level in levels:
            past = backtest(events, level=level, min_waiting=-(-min_waiting // unit))
            past["waiting"] *= unit
            past["origin"] = past["origin"].astype("datetime64[us, UTC]")
            inside = past["actual_seconds"].between(past["lower_seconds"], past["upper_seconds"])
            past["held"] = inside.astype("boolean").mask(past["lower_seconds"].isna())
            past.insert(0, "level", float(level))
            past.insert(1, "stage", pd.Series(row["stage"], past.index, dtype="str"))
            past.insert(2, "task_type", pd.Series(row["task_type"], past.index, dtype="str"))
            parts.append(past)
    return pd.concat(parts, ignore_index=True)


def _thinned(row: dict[Any, Any], now: pd.Timestamp) -> tuple[int, Times, Times]:
    """How many tracks count as one, and the times of every so many arrivals and completions: with
    more of them than ``EVENTS`` a forecast only takes longer."""
    unit = max(1, max(sum(row[f"{kind}_n"] or []) for kind in KINDS) // EVENTS)
    came, done = (_times(row[f"{k}_interval"], row[f"{k}_n"], now, unit) for k in KINDS)
    return unit, came, done


def _times(intervals: list[int] | None, n: list[int] | None, now: pd.Timestamp, unit: int) -> Times:
    """The middle one's time of every *unit* events, of which *n* came in each of the *intervals*,
    spread evenly over it."""
    counts = np.array(n or [], dtype=np.int64)
    starts = np.array(intervals or [], dtype=np.int64) * float(WIDTH)
    total = np.cumsum(counts)
    known = np.stack([total - counts, total], axis=1).ravel()
    at = np.stack([starts, starts + WIDTH], axis=1).ravel()
    wanted = (np.arange((total[-1] if len(total) else 0) // unit) + 0.5) * unit
    seconds = np.interp(wanted, known, at) if len(wanted) else wanted
    micros = np.minimum(seconds, HISTORY.total_seconds()) * 1e6
    start = np.datetime64((now - HISTORY).tz_localize(None), "us")
    return pd.Series(pd.DatetimeIndex(start + micros.astype("timedelta64[us]"), tz="UTC"))


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


def eta_end_to_end(schema: Schema, now: datetime, one_in: int = 1) -> Query:
    """One record per track that moves through the pipeline now, or went through all of it since
    ``HISTORY`` began; *one_in* so many of them (by a hash of the id).

    Columns: entered_at, due (null once through, else the name of one of the next columns), and for
    step after step completed_0, ... and attempts_0, ... (null where it is not completed).
    """
    start, numbers = constant(now - HISTORY), range(len(schema.pipeline.steps))
    row = schema.tasks.alias("row")
    id, number = schema.owner(row), visits.position(schema, row.c.task_type)
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
        .where(schema.of_steps(row), row.c.created_at >= start, _sampled(id, one_in))
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
        columns = (track.c.track_id.label("id"), integer(i).label("position"), track.c.arrived_at)
        moving = track.c.state.in_(MOVING)
        found.append(sa.select(*columns).where(moving, _sampled(track.c.track_id, one_in)))
    track = sa.union_all(*found).subquery("moving")
    first, arrived = sa.func.min(track.c.position), sa.func.min(track.c.arrived_at)
    return sa.select(track.c.id, first.label("position"), arrived.label("arrived_at")).group_by(
        track.c.id
    )


def _sampled(id: sa.ColumnElement[str], one_in: int) -> sa.ColumnElement[bool]:
    return sa.true() if one_in == 1 else sa.func.hashtext(id) % one_in == 0


def end_to_end(connection: sa.Connection, schema: Schema, now: datetime) -> pd.DataFrame:
    """What ``forecast.pipeline`` answers about all tracks that are inside, or about a sample of
    them where they are many: one record."""
    row = schema.tasks.alias("row")
    last = row.c.task_type == schema.pipeline.steps[-1].task
    recent = row.c.completed_at >= constant(now - HISTORY)
    through = sa.select(sa.func.count()).select_from(row).where(schema.ours(row), last, recent)
    one_in = max(1, -(-connection.scalars(through).one() // TRACKS))
    found = fetch(connection, eta_end_to_end(schema, now, one_in))
    steps, shares = [f"completed_{i}" for i in range(len(schema.pipeline.steps))], {}
    for i, step in enumerate(steps):
        attempts = found[f"attempts_{i}"].dropna().clip(lower=1)
        shares[step] = 1 - len(attempts) / float(attempts.sum()) if len(attempts) else 0.0
    answer = pipeline(found, steps, pd.Timestamp(now).tz_convert("UTC"), shares)
    frame = _frame([asdict(answer)], ["inside", "status"])
    if one_in > 1:
        everyone = sa.select(sa.func.count()).select_from(_inside(schema, 1).subquery("inside"))
        frame["inside"] = connection.scalars(everyone).one()
        frame["basis"] += f"; from a sample of one track in {one_in}"
    return frame
