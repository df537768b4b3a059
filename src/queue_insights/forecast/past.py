"""Forecasts put to the test on the past: what would have been said then, and did it hold?"""

import numpy as np
import pandas as pd

from queue_insights.errors import InputError
from queue_insights.forecast import conformal
from queue_insights.forecast.history import History, seconds

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
    if np.isnan(arrived).any():
        missing = int(np.isnan(arrived).sum())
        raise InputError(f"events.arrived_at is empty in {missing} rows: drop or fill them")
    return History(np.fmin(arrived, completed), completed[~np.isnan(completed)])


def span_seconds(span: str | pd.Timedelta, name: str) -> float:
    """Seconds in a span of time such as "6h" or "7D"; InputError if it is none, or not positive."""
    try:
        found = pd.Timedelta(span).total_seconds()
    except ValueError as error:
        raise InputError(f"{name}={span!r} is not a span of time: write e.g. '6h'") from error
    if not found > 0:
        raise InputError(f"{name}={span!r} is not a positive span of time: write e.g. '6h'")
    return found


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level={level!r} is not between 0 and 1: give e.g. 0.8")


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

    >>> score(backtest(events))  # doctest: +SKIP
    {'coverage': 0.81, 'winkler': 5421.0, 'mdape': 0.11, 'abstained': 0.0}
    """
    check_level(level)
    step, back = span_seconds(every, "every"), span_seconds(history, "history")
    past = read_events(events)
    origins = np.arange(0.0)
    if len(past.arrivals):
        origins = np.arange(past.arrivals[0] + back, past.last + step, step)
    waiting = past.waiting(origins)
    actual = past.time_to(origins, np.maximum(waiting, 1))
    enough = waiting >= max(min_waiting, 1)
    judged = enough & ~np.isnan(actual)
    asked = ((1 - level) / 2, 0.5, 1 - (1 - level) / 2)
    known = ~past.stalled(origins) & (past.done(origins) >= conformal.MIN_COMPLETIONS)
    given = conformal.ranges(past, origins, step, level, known & enough, asked)
    given[~known] = np.nan
    given = given[judged]
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


def score(backtest: pd.DataFrame, level: float = 0.8) -> dict[str, float]:
    """How good the ranges of a ``backtest`` at the same ``level`` were.

    coverage: share of ranges that held. winkler: mean interval score in seconds, the width and
    2 / (1 - level) times the distance by which the actual lies outside (Gneiting and Raftery
    2007, eq. 43; lower is better). mdape: median of |p50 - actual| / actual. abstained: share of
    all rows without a range. The first three over the rows with a range; NaN if there are none.
    """
    check_level(level)
    absent = [c for c in ("actual_seconds", *RANGE) if c not in backtest.columns]
    if absent:
        raise InputError(f"{', '.join(absent)} missing: score takes what forecast.backtest returns")
    given = backtest.dropna(subset=RANGE)
    actual, p50, lower, upper = given[["actual_seconds", *RANGE]].to_numpy(float).T
    if not len(given):
        nothing = dict.fromkeys(("coverage", "winkler", "mdape"), np.nan)
        return nothing | {"abstained": 1.0 if len(backtest) else np.nan}
    outside = np.maximum(lower - actual, 0) + np.maximum(actual - upper, 0)
    error = np.abs(p50 - actual) / np.maximum(actual, 1e-6)
    return {
        "coverage": float(np.mean((lower <= actual) & (actual <= upper))),
        "winkler": float(np.mean(upper - lower + 2 / (1 - level) * outside)),
        "mdape": float(np.median(error)),
        "abstained": float(1 - len(given) / len(backtest)),
    }
