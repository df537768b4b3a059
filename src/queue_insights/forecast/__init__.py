"""When will it be done? Pure functions: arrivals and completions in, ranges of time out.

``clear`` is when the work that waits now is done (as many further completions as items wait),
``empty`` when nothing waits any more, arrivals included. How the range of ``clear`` is found is
told in ``conformal``; how it is judged, in ``backtest``. ``empty`` comes from resampled futures:
arrivals and capacity, in blocks of whole days of the past.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from queue_insights.errors import InputError
from queue_insights.forecast import conformal
from queue_insights.forecast.endtoend import PipelineForecast, pipeline
from queue_insights.forecast.history import DAY, HOUR, WEEK, Floats, History, clock, moment, seconds
from queue_insights.forecast.past import backtest, record, score

__all__ = ["PipelineForecast", "StepForecast", "backtest", "forecast_step", "pipeline", "score"]

DRAWS = (0.02, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98)
MIN_JUDGED = 20  # items that wait, for a past range to count
YEAR = 365 * DAY
PATHS = 80  # futures that ``empty`` is read from
BINS = 600  # of one future
PER_DAY = (144, 24, 4, 1)  # bins of a day, the finest whose futures reach far enough is used
DAYS_BACK = 28


@dataclass(frozen=True)
class StepForecast:
    """The forecast of one step; ``dataclasses.asdict`` gives the record of a frame.

    status: draining, growing (arrivals outrun the work: no ``empty``), stalled, empty or
    insufficient_history. Durations are seconds from ``as_of``; None where there is no finite
    answer. ``lower`` and ``upper`` are the central range whose record is ``held`` of ``given``.
    Rates are per hour over the last week; growth is arrivals minus completions;
    ``needed_per_hour`` is the rate at which a growing queue would stop growing.
    """

    status: str
    as_of: pd.Timestamp
    waiting: int
    clear_p50_seconds: float | None = None
    clear_p80_seconds: float | None = None
    clear_p95_seconds: float | None = None
    clear_lower_seconds: float | None = None
    clear_upper_seconds: float | None = None
    clear_p50_at: pd.Timestamp | None = None
    clear_p80_at: pd.Timestamp | None = None
    clear_p95_at: pd.Timestamp | None = None
    empty_p50_seconds: float | None = None
    empty_p80_seconds: float | None = None
    empty_p95_seconds: float | None = None
    empty_p50_at: pd.Timestamp | None = None
    empty_p80_at: pd.Timestamp | None = None
    empty_p95_at: pd.Timestamp | None = None
    rate_per_hour: float | None = None
    arrivals_per_hour: float | None = None
    growth_per_hour: float | None = None
    needed_per_hour: float | None = None
    held: int = 0
    given: int = 0
    basis: str = ""


def forecast_step(
    arrivals: pd.Series,
    completions: pd.Series,
    now: pd.Timestamp,
    waiting: int | None = None,
) -> StepForecast:
    """The forecast of one step as of ``now``.

    ``arrivals`` and ``completions``: tz-aware times in any order, the last weeks or months of them
    (NaT is skipped, what lies after ``now`` ignored). ``waiting`` is how many wait now; by default
    arrivals minus completions, which needs the full history. Raises InputError.

    >>> found = forecast_step(events["arrived_at"], events["completed_at"], now)  # doctest: +SKIP
    """
    at = moment(now)
    came, went = seconds(arrivals, "arrivals"), seconds(completions, "completions")
    came, went = came[came <= at], went[went <= at]  # NaN compares false
    balance = len(came) - len(went)
    queued = max(balance, 0) if waiting is None else int(waiting)
    if queued < 0:
        raise InputError(f"waiting={waiting} is negative: give the number of items that wait")
    past = History(came, went, carried=queued - balance)
    length = min(WEEK, max(at - past.first, HOUR)) if len(came) + len(went) else HOUR
    lately = np.array([at - length, at])
    rate = float(np.diff(past.done(lately))[0] / length * HOUR)
    coming = float(np.diff(past.arrived(lately))[0] / length * HOUR)
    as_of = clock(at)
    answer = partial(
        StepForecast,
        as_of=as_of,
        waiting=queued,
        rate_per_hour=rate,
        arrivals_per_hour=coming,
        growth_per_hour=coming - rate,
    )
    if queued == 0:
        clear = conformal.told(as_of, (0.0,) * 5, "clear_")
        empty = conformal.told(as_of, (0.0,) * 3, "empty_")
        return answer("empty", **clear, **empty, basis="nothing waits")
    done = len(past.completions)
    if done < conformal.MIN_COMPLETIONS:
        basis = f"only {done} completions known, {conformal.MIN_COMPLETIONS} are needed"
        return answer("insufficient_history", basis=basis)
    if past.stalled(np.array([at]))[0]:
        idle = pd.Timedelta(seconds=round(at - past.completions[-1]))
        basis = f"nothing completed for {idle}, over twice the longest pause before"
        return answer("stalled", basis=basis)
    return _estimate(past, at, queued, coming if coming > rate else None, answer)


def _estimate(
    past: History,
    at: float,
    queued: int,
    outrun_by: float | None,
    answer: Callable[..., StepForecast],
) -> StepForecast:
    """The ranges, and their record; *outrun_by* is the rate of arrivals, if the work is slower."""
    origins = conformal.past_origins(past, at)
    judged = (past.waiting(origins) >= MIN_JUDGED) & ~past.stalled(origins)
    average = queued * (at - past.first) / len(past.completions)
    reach = min(max(conformal.WARM_UP, conformal.HORIZONS * average), YEAR)
    asked = (*conformal.TOLD, *DRAWS)
    found = conformal.ranges(past, origins, conformal.STEP, conformal.LEVEL, judged, asked, reach)
    if np.isnan(found[-1]).any():
        return answer("insufficient_history", basis=conformal.too_little(past, at))
    clear_seconds, draws = found[-1, :5], found[-1, 5:]
    empty_seconds = _time_to_empty(past, at, queued, draws, 8 * clear_seconds[2])
    as_of, growing = clock(at), bool(np.isinf(empty_seconds[0])) and outrun_by is not None
    fields = conformal.told(as_of, clear_seconds, "clear_")
    if growing:
        fields["needed_per_hour"] = outrun_by
    else:
        fields |= conformal.told(as_of, empty_seconds, "empty_")
    origins, lower, upper = origins[judged], found[judged, 3], found[judged, 4]
    actual = past.time_to(origins, np.maximum(past.waiting(origins), 1))
    held, given = record(actual, lower, upper)
    days = (at - max(past.first + DAY, at - conformal.LOOK_BACK)) / DAY
    basis = f"its own past {conformal.LEVEL:.0%} ranges of the last {days:.0f} days"
    if given:
        basis += f": of the last {given}, {held} held"
    status = "growing" if growing else "draining"
    return answer(status, **fields, held=held, given=given, basis=basis)


def _time_to_empty(past: History, at: float, waiting: int, draws: Floats, reach: float) -> Floats:
    """p50, p80 and p95 of the seconds until nothing waits, inf where it never does.

    From PATHS futures, which last ``reach`` seconds if they can. The capacity of each is scaled so
    that the ``waiting`` items are done after a time drawn from ``draws``, the quantiles of that at
    DRAWS; arrivals then come on top.
    """
    rng = np.random.default_rng(0)
    enough = [n for n in PER_DAY if BINS * DAY / n >= reach]
    width = DAY / (enough or PER_DAY[-1:])[0]
    arrivals, capacity = _futures(past, at, width, rng)
    ranks = (np.arange(PATHS) + 0.5) / PATHS
    clear = rng.permutation(np.exp(np.interp(ranks, DRAWS, np.log(draws))))
    path = np.arange(PATHS)
    done = np.cumsum(capacity, axis=1)
    ends = np.clip(clear / width, 1e-9, done.shape[1])
    full = np.minimum(ends.astype(int), done.shape[1] - 1)
    before = np.where(full > 0, done[path, full - 1], 0.0)
    by_clear = before + (ends - full) * capacity[path, full]
    scale = np.clip(waiting / np.maximum(by_clear, 1e-9), 0.05, 20.0)
    left = waiting + np.cumsum(arrivals - scale[:, None] * capacity, axis=1)
    first = np.argmax(left <= 0, axis=1)
    start = np.where(first > 0, left[path, first - 1], waiting)
    share = start / np.maximum(start - left[path, first], 1e-9)
    until = np.maximum((first + share) * width, clear)
    until[(left > 0).all(axis=1)] = np.inf
    found: Floats = np.quantile(until, [0.5, 0.8, 0.95], method="inverted_cdf")
    return found


def _futures(
    past: History, at: float, width: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Arrivals and capacity per bin of ``width`` seconds from now on, shape (PATHS, bins): past
    days in a row, of the same weekday once two weeks are known.

    Capacity is what was completed while work waited through the bin; elsewhere at least the mean
    of the busy bins at that time of day, as an idle queue shows nothing of what it could do.
    """
    days = int(np.clip((at - past.first) // DAY, 1, DAYS_BACK))
    days -= days % 7 if days >= 14 else 0
    slots = round(DAY / width)
    edges = at - width * np.arange(days * slots, -1, -1.0)
    arrivals = np.diff(past.arrived(edges)).reshape(days, slots).astype(float)
    done = np.diff(past.done(edges)).reshape(days, slots).astype(float)
    queued = past.waiting(edges) > 0
    busy = (queued[:-1] & queued[1:]).reshape(days, slots)
    overall = done[busy].mean() if busy.any() else done.mean()
    times = busy.sum(axis=0)
    usual = np.where(times > 0, (done * busy).sum(axis=0) / np.maximum(times, 1), overall)
    capacity = np.where(busy, done, np.maximum(done, usual))
    ahead = -(-BINS // slots)
    if days >= 14:
        week = rng.integers(0, days // 7, (PATHS, ahead))
        source = week * 7 + np.arange(ahead) % 7
    else:
        source = rng.integers(0, days, (PATHS, ahead))
    return arrivals[source].reshape(PATHS, -1), capacity[source].reshape(PATHS, -1)
