"""Forecasts put to the test on the past: what would have been said then, and did it hold?"""

import numpy as np
import pandas as pd

from queue_insights.errors import InputError
from queue_insights.forecast import conformal
from queue_insights.forecast.history import HOUR, WEEK, History, seconds
from queue_insights.pipeline import parse_duration

RANGE = ["p50_seconds", "lower_seconds", "upper_seconds"]


def read_events(events: pd.DataFrame) -> History:
    """The History of a frame with tz-aware ``arrived_at`` and ``completed_at`` (NaT: not yet).

    An item that completed before it arrived counts as arrived when it completed. Raises
    InputError for missing columns, naive times, and rows without ``arrived_at``.
    """
    for column in ("arrived_at", "completed_at"):
        if column not in getattr(events, "columns", []):
            raise InputError(f"events has no column {column}: give arrived_at and completed_at")
    arrived = seconds(events["arrived_at"], "events.arrived_at")
    completed = seconds(events["completed_at"], "events.completed_at")
    if missing := int(np.isnan(arrived).sum()):
        raise InputError(f"events.arrived_at is empty in {missing} rows: drop or fill them")
    return History(np.fmin(arrived, completed), completed[~np.isnan(completed)])


def backtest(
    events: pd.DataFrame,
    every: str = "6h",
    level: float = 0.8,
    min_waiting: int = 20,
    history: str = "7D",
) -> pd.DataFrame:
    """When *would* the waiting work be done, as said at past origins, and when was it?

    ``events``: one row per item, tz-aware ``arrived_at`` and ``completed_at`` (NaT if not
    completed). Origins start one ``history`` after the first arrival, one each ``every``; a row
    is given where at least ``min_waiting`` items wait (arrived, not completed, at that time) and
    the waiting-th completion after the origin is in ``events``. What happens after an origin
    has no influence on its forecast.

    Columns: origin (datetime, UTC), waiting (int), actual_seconds (float, to the waiting-th
    completion), p50_seconds, lower_seconds, upper_seconds (float; the central ``level`` range; NaN
    where it abstains), status (str: growing or draining, as ``History.growing`` has it; stalled or
    insufficient_history where it abstains). Raises InputError.
    """
    step, back = (parse_duration(s, n) for s, n in ((every, "every"), (history, "history")))
    seconds_apart, before = step.total_seconds(), back.total_seconds()
    return judge(read_events(events), level, min_waiting, seconds_apart, before)


def judge(
    past: History, level: float, min_waiting: int, step: float = 6 * HOUR, back: float = WEEK
) -> pd.DataFrame:
    """As ``backtest``, of a history."""
    if not 0 < level < 1:
        raise InputError(f"level={level!r} is not between 0 and 1: give e.g. 0.8")
    origins = np.arange(0.0)
    if np.isfinite(past.first):
        origins = np.arange(past.first + back, past.last + step, step)
    waiting = past.waiting(origins)
    actual = past.time_to(origins, np.maximum(waiting, 1))
    enough = waiting >= max(min_waiting, 1)
    judged = enough & ~np.isnan(actual)
    asked = ((1 - level) / 2, 0.5, 1 - (1 - level) / 2)
    known = ~past.stalled(origins) & (past.done(origins) >= conformal.MIN_COMPLETIONS)
    given = conformal.ranges(past, origins, step, level, known & enough, asked)
    given = np.where(known[:, None], given, np.nan)[judged]
    found = pd.DataFrame(
        {
            "origin": pd.to_datetime(np.rint(origins[judged] * 1e6), unit="us", utc=True),
            "waiting": waiting[judged].astype(np.int64),
            "actual_seconds": actual[judged],
        }
    )
    found[RANGE] = given[:, [1, 0, 2]]
    status = np.where(past.growing(origins[judged]), "growing", "draining")
    why = np.where(past.stalled(origins[judged]), "stalled", "insufficient_history")
    found["status"] = np.where(np.isnan(given).any(axis=1), why, status)
    return found
