"""When will it be done? Pure functions: arrivals and completions in, ranges of time out.

``clear`` is when the work that waits now is done (as many further completions as items wait),
``empty`` when nothing waits any more, arrivals included. How the range of ``clear`` is found is
told in ``conformal``; how it is judged, in ``backtest``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from queue_insights import conformal, futures
from queue_insights.backtest import backtest, check_level, score, span_seconds
from queue_insights.endtoend import PipelineForecast, pipeline
from queue_insights.errors import InputError
from queue_insights.history import DAY, HOUR, Floats, History, moment, seconds

__all__ = ["PipelineForecast", "StepForecast", "backtest", "forecast_step", "pipeline", "score"]

DRAWS = (0.02, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98)
RECORD = 120  # past ranges that are counted, of origins at which MIN_JUDGED items waited
MIN_JUDGED = 20
LOOK_BACK, WARM_UP = 30 * DAY, 10 * DAY
YEAR = 365 * DAY


@dataclass(frozen=True)
class StepForecast:
    """The forecast of one step; ``dataclasses.asdict`` gives the record of a frame.

    status: draining, growing (arrivals outrun the work: no ``empty``), stalled, empty or
    insufficient_history. Durations are seconds from ``as_of``; None where there is no finite
    answer. ``lower`` and ``upper`` are the central range whose record is ``held`` of ``given``.
    Rates are per hour over the last ``history``; growth is arrivals minus completions;
    ``needed_per_hour`` is the rate at which a growing queue would stop growing.
    """

    status: str
    as_of: pd.Timestamp
    waiting: int
    clear_p50_seconds: float | None
    clear_p80_seconds: float | None
    clear_p95_seconds: float | None
    clear_lower_seconds: float | None
    clear_upper_seconds: float | None
    clear_p50_at: pd.Timestamp | None
    clear_p80_at: pd.Timestamp | None
    clear_p95_at: pd.Timestamp | None
    empty_p50_seconds: float | None
    empty_p80_seconds: float | None
    empty_p95_seconds: float | None
    empty_p50_at: pd.Timestamp | None
    empty_p80_at: pd.Timestamp | None
    empty_p95_at: pd.Timestamp | None
    rate_per_hour: float | None
    arrivals_per_hour: float | None
    growth_per_hour: float | None
    needed_per_hour: float | None
    held: int
    given: int
    basis: str


def forecast_step(
    arrivals: pd.Series,
    completions: pd.Series,
    now: pd.Timestamp,
    waiting: int | None = None,
    every: str = "6h",
    level: float = 0.8,
    history: str = "7D",
) -> StepForecast:
    """The forecast of one step as of ``now``.

    ``arrivals`` and ``completions``: tz-aware times in any order, the last weeks or months of them
    (NaT is skipped, what lies after ``now`` ignored). ``waiting`` is how many wait now; by default
    arrivals minus completions, which needs the full history. Past ranges, for the record and the
    calibration, are ``every`` so often. Raises InputError.

    >>> found = forecast_step(events["arrived_at"], events["completed_at"], now)  # doctest: +SKIP
    """
    check_level(level)
    step, back = span_seconds(every, "every"), span_seconds(history, "history")
    at = moment(now)
    came, went = seconds(arrivals, "arrivals"), seconds(completions, "completions")
    came, went = came[came <= at], went[went <= at]  # NaN compares false
    balance = len(came) - len(went)
    queued = max(balance, 0) if waiting is None else int(waiting)
    if queued < 0:
        raise InputError(f"waiting={waiting} is negative: give the number of items that wait")
    past = History(came, went, carried=queued - balance)
    flow = _flow(past, at, back)
    done = len(past.completions)
    if queued == 0:
        return _result("empty", at, 0, (0.0,) * 5, (0.0,) * 3, flow, (0, 0), "nothing waits")
    if done < conformal.MIN_COMPLETIONS:
        basis = f"only {done} completions known, {conformal.MIN_COMPLETIONS} are needed"
        return _result("insufficient_history", at, queued, None, None, flow, (0, 0), basis)
    if past.stalled(np.array([at]))[0]:
        idle = pd.Timedelta(seconds=round(at - past.completions[-1]))
        basis = f"nothing completed for {idle}, over twice the longest pause before"
        return _result("stalled", at, queued, None, None, flow, (0, 0), basis)
    return _estimate(past, at, queued, flow, step, level)


def _estimate(
    past: History, at: float, queued: int, flow: tuple[float, float], step: float, level: float
) -> StepForecast:
    tail = (1 - level) / 2
    oldest = max(past.first + DAY, at - LOOK_BACK)
    count = max(int((at - oldest) // step), 0) + 1
    origins = at - step * np.arange(count - 1, -1, -1.0)
    length = queued * (at - past.first) / len(past.completions)
    reach = min(max(WARM_UP, conformal.HORIZONS * length), YEAR)
    asked = (0.5, 0.8, 0.95, tail, 1 - tail, *DRAWS)
    judged = (past.waiting(origins) >= MIN_JUDGED) & ~past.stalled(origins)
    found = conformal.ranges(past, origins, step, level, judged, asked, reach)
    if np.isnan(found[-1]).any():
        days = (at - past.first) / DAY
        basis = f"{days:.1f} days of history hold too few answers to learn from"
        return _result("insufficient_history", at, queued, None, None, flow, (0, 0), basis)
    record = _record(past, origins[judged], found[judged, 3], found[judged, 4])
    clear = tuple(float(value) for value in found[-1, :5])
    rng = np.random.default_rng(0)
    ranks = (np.arange(futures.PATHS) + 0.5) / futures.PATHS
    draws = np.exp(np.interp(ranks, DRAWS, np.log(found[-1, 5:])))
    width = futures.bin_width(8 * clear[2])
    ahead = futures.resample(past, at, width, rng)
    until = futures.time_to_empty(ahead, queued, rng.permutation(draws))
    empty = tuple(np.quantile(until, [0.5, 0.8, 0.95], method="inverted_cdf"))
    growing = np.isinf(empty[0]) and flow[1] > flow[0]
    status = "growing" if growing else "draining"
    basis = f"its own past {level:.0%} ranges of the last {(at - oldest) / DAY:.0f} days"
    if record[1]:
        basis += f": of the last {record[1]}, {record[0]} held"
    return _result(status, at, queued, clear, None if growing else empty, flow, record, basis)


def _flow(past: History, at: float, back: float) -> tuple[float, float]:
    """(completions, arrivals) per hour over the last ``back`` seconds, or as long as is known."""
    length = min(back, max(at - past.first, HOUR)) if past.first == past.first else HOUR
    edges = np.array([at - length, at])
    done, arrived = np.diff(past.done(edges))[0], np.diff(past.arrived(edges))[0]
    return float(done / length * HOUR), float(arrived / length * HOUR)


def _record(past: History, origins: Floats, lower: Floats, upper: Floats) -> tuple[int, int]:
    """(held, given) of the last RECORD ranges whose answer is known; see ``backtest``."""
    waiting = past.waiting(origins)
    actual = past.time_to(origins, np.maximum(waiting, 1))
    judged = ~np.isnan(actual) & ~np.isnan(lower)
    held = (lower <= actual) & (actual <= upper)
    return int(held[judged][-RECORD:].sum()), min(int(judged.sum()), RECORD)


def _result(
    status: str,
    at: float,
    waiting: int,
    clear: tuple[float, ...] | None,
    empty: tuple[float, ...] | None,
    flow: tuple[float, float],
    record: tuple[int, int],
    basis: str,
) -> StepForecast:
    as_of = pd.Timestamp(at, unit="s", tz="UTC").round("us")

    answers: dict[str, Any] = {}
    for name, found in (("clear", clear), ("empty", empty)):
        for place, part in enumerate(("p50", "p80", "p95")):
            length = None if found is None or np.isinf(found[place]) else float(found[place])
            at_clock = None if length is None else as_of + pd.Timedelta(seconds=round(length, 3))
            answers |= {f"{name}_{part}_seconds": length, f"{name}_{part}_at": at_clock}
    lower, upper = clear[3:] if clear else (None, None)
    rate, arrivals = flow
    return StepForecast(
        status=status,
        as_of=as_of,
        waiting=waiting,
        clear_lower_seconds=lower,
        clear_upper_seconds=upper,
        **answers,
        rate_per_hour=rate,
        arrivals_per_hour=arrivals,
        growth_per_hour=arrivals - rate,
        needed_per_hour=arrivals if status == "growing" else None,
        held=record[0],
        given=record[1],
        basis=basis,
    )
