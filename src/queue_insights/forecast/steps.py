"""From counts of events to forecasts as frames: one row per step, or one for all of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from queue_insights.errors import InputError
from queue_insights.forecast import COLUMNS, EVENTS, forecast
from queue_insights.forecast.history import History
from queue_insights.forecast.past import judge

HISTORY = timedelta(days=45)  # as far as the forecasts look back
WIDTH = 300  # seconds: events are fetched as counts of so long, and spread evenly over it
KINDS = {  # of columns, by the last word of their names; all others are text
    **dict.fromkeys(("waiting", "held", "given"), "int64"),
    **{"seconds": "float64", "hour": "float64", "at": "datetime64[us, UTC]"},
}


# Stands for the steps of a queue that has none, so that its frames have columns, too.
_NOBODY: dict[Any, Any] = {"stage": None, "task_type": None, "waiting": 0, "moving": 0}
_NOBODY |= {
    f"{kind}_{of}": None for kind in ("arrivals", "completions") for of in ("n", "interval")
}


def step_forecasts(
    found: pd.DataFrame, now: datetime, speed: Mapping[str, float], extra: Mapping[str, int]
) -> pd.DataFrame:
    """What ``forecast.forecast`` answers to what ``eta`` found: a record per step, for each
    task's *speed* and *extra* items."""
    records = []
    for row in found.to_dict("records") or [_NOBODY]:
        step = {name: row[name] for name in ("stage", "task_type")}
        factor, more = speed.get(row["task_type"], 1.0), extra.get(row["task_type"], 0)
        past = _history(row, now, row["waiting"])
        records.append(step | forecast(past, pd.Timestamp(now), factor, more))
    frame = pd.DataFrame(records, columns=["stage", "task_type", *COLUMNS]).head(len(found))
    return frame.astype({n: KINDS.get(n.rpartition("_")[2], "str") for n in map(str, frame)})


def past_ranges(
    found: pd.DataFrame, now: datetime, levels: Sequence[float], min_waiting: int
) -> pd.DataFrame:
    """What ``forecast.backtest`` makes of what ``eta`` found, step by step at each level."""
    if not len(levels):
        raise InputError("levels is empty: give at least one, such as 0.8")
    parts = []
    for row in found.to_dict("records") or [_NOBODY]:
        unit, history = _history(row, now, row["moving"]).thinned(EVENTS)
        history.carried = max(history.carried, 0)
        for level in levels:
            past = judge(history, level, -(-min_waiting // unit))
            past["waiting"] *= unit
            past["origin"] = past["origin"].astype("datetime64[us, UTC]")
            inside = past["actual_seconds"].between(past["lower_seconds"], past["upper_seconds"])
            past["held"] = inside.astype("boolean").mask(past["lower_seconds"].isna())
            past.insert(0, "level", float(level))
            past.insert(1, "stage", pd.Series(row["stage"], past.index, dtype="str"))
            past.insert(2, "task_type", pd.Series(row["task_type"], past.index, dtype="str"))
            parts.append(past)
    return pd.concat(parts, ignore_index=True)


def _history(row: dict[Any, Any], now: datetime, waiting: int) -> History:
    """The history of a step at which so many are *waiting* now: events of which so many came in
    each of the intervals, spread evenly over it."""
    times = []
    for kind in ("arrivals", "completions"):
        counts = np.array(row[f"{kind}_n"] or [], dtype=np.int64)
        starts = np.array(row[f"{kind}_interval"] or [], dtype=np.int64)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        within = (place + 0.5) / np.repeat(counts, counts)
        since = np.minimum((np.repeat(starts, counts) + within) * WIDTH, HISTORY.total_seconds())
        times.append((now - HISTORY).timestamp() + since)
    came, went = times
    return History(came, went, waiting - len(came) + len(went))


def end_to_end(found: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """What ``forecast.forecast`` says of the pipeline as one queue, which a track enters at
    the first step and leaves at the last: one record."""
    one = step_forecasts(found.assign(stage=None, task_type=None), now, {}, {})
    kept = one.filter(regex="^(waiting|status|clear_.*|held|given|basis)$")
    return kept.rename(
        columns=lambda name: name.removeprefix("clear_").replace("waiting", "inside")
    )


def beside(
    before: pd.DataFrame, after: pd.DataFrame, speed: Mapping[str, float], extra: Mapping[str, int]
) -> pd.DataFrame:
    """Two answers of ``Queue.eta()`` side by side, the columns of *after* that may differ with
    ``if_`` before their names; ``assumption`` says what was supposed, null where nothing was."""
    same = ["stage", "task_type", "arrivals_per_hour", "window_seconds", "held", "given", "basis"]
    after = after.drop(columns=same).add_prefix("if_")
    said = []
    for task in before["task_type"]:
        parts = [f"{speed[task]:g} times the speed from now on"] if task in speed else []
        parts += [f"{extra[task]:,} more waiting now"] if task in extra else []
        said.append(f"{', '.join(parts)}; arrivals as they are" if parts else None)
    return pd.concat([before, after], axis=1).assign(assumption=pd.Series(said, dtype="str"))
