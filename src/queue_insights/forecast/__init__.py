"""When will it be done? Pure functions: arrivals and completions in, ranges of time out.

``clear`` is when the work that waits now is done (as many further completions as items wait),
``empty`` when nothing waits any more, arrivals included. How the range of ``clear`` is found is
told in ``conformal``; how it is judged, in ``backtest``.
"""

from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from queue_insights.forecast import conformal
from queue_insights.forecast.history import DAY, HOUR, WEEK, Floats, History
from queue_insights.forecast.past import backtest

__all__ = ["backtest", "forecast"]

LEVEL = 0.8
EVENTS = 50_000  # arrivals or completions that are reckoned with one by one
RANGE = {"p50": 0.5, "p80": 0.8, "p95": 0.95, "lower": (1 - LEVEL) / 2, "upper": (1 + LEVEL) / 2}
STEP, LOOK_BACK = 6 * HOUR, 30 * DAY  # past ranges: one so often, from so long ago on
MIN_JUDGED = 20  # items that wait, for a past range to count
RECORD = 120  # past ranges that are counted
FURTHEST = 365 * DAY  # a queue that is not empty by then is not expected to be


_ENDS = [f"{of}_seconds" for of in RANGE] + [f"{of}_at" for of in RANGE if of.startswith("p")]
# Of the forecast of one step, which ``Queue.eta`` explains.
COLUMNS = (
    *("waiting", "status", *(f"{what}_{end}" for what in ("clear", "empty") for end in _ENDS)),
    *("rate_per_hour", "arrivals_per_hour", "growth_per_hour", "needed_per_hour"),
    *("window_seconds", "held", "given", "basis"),
)


def forecast(
    past: History, as_of: pd.Timestamp, speed: float = 1.0, extra: int = 0
) -> dict[str, Any]:
    """The forecast of one step from its history up to ``as_of``, by COLUMNS; of more than EVENTS
    events, several count as one. Durations are seconds from ``as_of``; what has no finite answer is
    left out, and no ``empty`` is given of a growing queue.

    What if from now on each thing done took 1 / ``speed`` of the time, and ``extra`` items waited
    on top? Arrivals are taken to go on as they do.
    """
    as_of, now = as_of.tz_convert("UTC"), np.array([as_of.timestamp()])
    came, went, length = (float(each[0]) for each in past.lately(now))
    coming, rate = (n / length * HOUR for n in (came, went * speed))
    unit, few = past.thinned(EVENTS)
    fields = _answer(few, as_of, -(-extra // unit), speed, bool(past.growing(now, speed)[0]))
    if fields["status"] == "growing":
        fields["needed_per_hour"] = coming
    fields |= {"rate_per_hour": rate, "arrivals_per_hour": coming, "growth_per_hour": coming - rate}
    waiting = int(past.waiting(now)[0]) + extra
    return {"waiting": waiting, "window_seconds": length, "held": 0, "given": 0, **fields}


def _answer(
    past: History, as_of: pd.Timestamp, extra: int, speed: float, growing: bool
) -> dict[str, Any]:
    """The status, its basis and the ranges."""
    at, done = as_of.timestamp(), len(past.completions)
    queued, days = int(past.waiting(np.array([at]))[0]) + extra, (at - past.first) / DAY
    if queued == 0:
        ranges = _fields(as_of, np.zeros(5), "clear_") | _fields(as_of, np.zeros(5), "empty_")
        return ranges | {"status": "empty", "basis": "nothing waits"}
    if done < conformal.MIN_COMPLETIONS:
        basis = f"only {done} completions known, {conformal.MIN_COMPLETIONS} are needed"
        return {"status": "insufficient_history", "basis": basis}
    if past.stalled(np.array([at]))[0]:
        idle = pd.Timedelta(seconds=round(at - past.completions[-1]))
        basis = f"nothing completed for {idle}, over twice the longest pause before"
        return {"status": "stalled", "basis": basis}
    clear, held, given = _clear(past, at, extra, speed)
    if np.isnan(clear).any():
        basis = f"{days:.1f} days of history hold too few answers to learn from"
        return {"status": "insufficient_history", "basis": basis}
    basis = f"its own past {LEVEL:.0%} ranges of the last {min(days, LOOK_BACK / DAY):.0f} days"
    basis += f": of the last {given}, {held} held" if given else ""
    found = _fields(as_of, clear, "clear_") | {"held": held, "given": given, "basis": basis}
    if growing:
        return found | {"status": "growing"}
    empty = _empty(past, at, queued, clear)
    return found | {"status": "draining"} | _fields(as_of, empty, "empty_")


def _fields(as_of: pd.Timestamp, found: Floats, prefix: str) -> dict[str, Any]:
    """Seconds for each of RANGE, and clock times of p50, p80 and p95; none of what is infinite."""
    known = {n: float(s) for n, s in zip(RANGE, found, strict=True) if np.isfinite(s)}
    ends = {n: as_of + pd.Timedelta(seconds=round(s, 3)) for n, s in known.items() if n[0] == "p"}
    fields: dict[str, Any] = {f"{prefix}{name}_seconds": s for name, s in known.items()}
    return fields | {f"{prefix}{name}_at": end for name, end in ends.items()}


def _clear(past: History, at: float, extra: int, speed: float) -> tuple[Floats, int, int]:
    """(RANGE of the seconds, how many past ranges held, of how many)."""
    oldest = max(past.first + DAY, at - LOOK_BACK)
    origins = at - STEP * np.arange(max(int((at - oldest) // STEP), 0), -1, -1.0)
    waiting = past.waiting(origins)
    judged = (waiting >= MIN_JUDGED) & ~past.stalled(origins)
    asked = tuple(RANGE.values())
    found = conformal.ranges(past, origins, STEP, LEVEL, judged, asked, extra, speed)
    actual, (lower, upper) = past.time_to(origins, np.maximum(waiting, 1)), found[:, 3:].T
    known = judged & ~np.isnan(actual) & ~np.isnan(lower)
    held = ((lower <= actual) & (actual <= upper))[known][-RECORD:]
    return found[-1], int(held.sum()), len(held)


def _empty(past: History, at: float, waiting: int, clear: Floats) -> Floats:
    """Seconds until nothing waits, for each of ``clear``; inf where that is not to be expected.

    The last week (or day, of a young queue) comes again and again, hour by hour: the arrivals as
    they were; the work as it was while something waited, and in idle hours on average as much,
    scaled so that the ``waiting`` are done after ``clear``.
    """
    edges = at - HOUR * np.arange(168 if at - past.first >= WEEK else 24, -1, -1.0)
    came, went = np.diff(past.arrived(edges)), np.diff(past.done(edges))
    busy = np.diff(past.area(edges, 1)) / HOUR
    usual = went.sum() / max(busy.sum(), 1.0)
    able = np.where(busy > 0.5, went / np.maximum(busy, 0.5), np.maximum(went, usual)) + 1e-9
    hours = np.arange(ceil(FURTHEST / HOUR / len(came)) * len(came) + 1)
    arrived, work = (
        np.append(0.0, np.cumsum(np.resize(each, len(hours) - 1))) for each in (came, able)
    )
    scale = waiting / np.maximum(np.interp(clear / HOUR, hours, work), 1e-9)
    left = waiting + arrived - scale[:, None] * work
    none = (left <= 0) & (hours >= clear[:, None] / HOUR)
    end, path = np.maximum(np.argmax(none, axis=1), 1), np.arange(len(clear))
    before, after = left[path, end - 1], left[path, end]
    share = np.clip(before / np.maximum(before - after, 1e-9), 0, 1)
    return np.where(none.any(axis=1), np.maximum((end - 1 + share) * HOUR, clear), np.inf)
