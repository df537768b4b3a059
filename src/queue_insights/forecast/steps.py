"""From counts of events to forecasts as frames: one row per step, or one for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from queue_insights.errors import InputError
from queue_insights.forecast import backtest, forecast_step

HISTORY = timedelta(days=45)  # as far as the forecasts look back
WIDTH = 300  # seconds: events are fetched as counts of so long, and spread evenly over it
EVENTS = 50_000  # of more at a step, several count as one
KINDS = ("arrivals", "completions")

Times: TypeAlias = "pd.Series[pd.Timestamp]"


def step_forecasts(
    found: pd.DataFrame, now: datetime, speed: Mapping[str, float], extra: Mapping[str, int]
) -> pd.DataFrame:
    """What ``forecast.forecast_step`` answers to what ``eta`` found: a record per step, for each
    task's *speed* and *extra* items."""
    moment = pd.Timestamp(now).tz_convert("UTC")
    records = []
    for row in found.to_dict("records"):
        unit, came, done = _thinned(row, moment)
        what_if = float(speed.get(row["task_type"], 1)), int(extra.get(row["task_type"], 0))
        answer = forecast_step(came, done, moment, row["waiting"], *what_if, unit)
        records.append({"stage": row["stage"], "task_type": row["task_type"]} | asdict(answer))
    return _frame(records, ["stage", "task_type", "waiting", "status"])


def what_if(
    found: pd.DataFrame, now: datetime, speed: Mapping[str, float], extra: Mapping[str, int]
) -> pd.DataFrame:
    """``step_forecasts`` of things as they are, and beside them, with ``if_`` before their names,
    as they would be; ``assumption`` says how, null where a step stays as it is."""
    before, after = step_forecasts(found, now, {}, {}), step_forecasts(found, now, speed, extra)
    same = ["stage", "task_type", "arrivals_per_hour", "window_seconds", "held", "given", "basis"]
    after = after.drop(columns=same).add_prefix("if_")
    said = []
    for task in before["task_type"]:
        parts = [f"{speed[task]:g} times the speed from now on"] if task in speed else []
        parts += [f"{extra[task]:,} more waiting now"] if task in extra else []
        said.append(f"{', '.join(parts)}; arrivals as they are" if parts else None)
    return pd.concat([before, after], axis=1).assign(assumption=pd.Series(said, dtype="str"))


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
        else:
            counts = name in ("waiting", "held", "given")
            frame[name] = frame[name].astype("int64") if counts else frame[name].astype("str")
    return frame


def end_to_end(found: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """What ``forecast.forecast_step`` says of the pipeline as one queue, which a track enters at
    the first step and leaves at the last: one record."""
    one = step_forecasts(found.assign(stage=None, task_type=None), now, {}, {})
    kept = one.filter(regex="^(waiting|status|clear_.*|held|given|basis)$")
    return kept.rename(
        columns=lambda name: name.removeprefix("clear_").replace("waiting", "inside")
    )
