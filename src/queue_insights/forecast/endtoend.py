"""When will all that is in the pipeline now have left it?

The steps are simulated together, from now and from hundreds of past moments whose outcome is
known: what a step completes arrives at the next, a share of the attempts fails and comes back
after its backoff, and each step does per hour of the day what it was seen to do while work
waited. What the simulation says, and what the pipeline as one queue suggests, are then blended
and given a range by their past errors, as in ``conformal``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from queue_insights.errors import InputError
from queue_insights.forecast import conformal
from queue_insights.forecast.history import DAY, Floats, History, clock, moment, seconds
from queue_insights.forecast.past import record

BACKOFF = (300.0, 900.0, 1800.0)  # seconds after the first, second and third failure
BINS = 300
WIDTHS = (600.0, 1200.0, 3600.0, 7200.0)  # of a bin; all divide the time between trials
PROFILE = 7  # days whose capacity is averaged, by time of day


@dataclass(frozen=True)
class Tracks:
    """One row per track: when it entered and left, and arrivals and completions per step."""

    whole: History
    last_ready: Floats  # of all that entered up to the i-th entry, inf while one is inside
    steps: list[History]


@dataclass(frozen=True)
class PipelineForecast:
    """When all tracks now inside are ready; durations in seconds from ``as_of``, None if unknown.

    status: ``draining``, ``empty`` (nothing inside) or ``insufficient_history``. ``lower`` and
    ``upper`` are the central range whose record is ``held`` of ``given``.
    """

    status: str
    as_of: pd.Timestamp
    inside: int
    p50_seconds: float | None = None
    p80_seconds: float | None = None
    p95_seconds: float | None = None
    lower_seconds: float | None = None
    upper_seconds: float | None = None
    p50_at: pd.Timestamp | None = None
    p80_at: pd.Timestamp | None = None
    p95_at: pd.Timestamp | None = None
    held: int = 0
    given: int = 0
    basis: str = ""


def pipeline(
    tracks: pd.DataFrame,
    steps: Sequence[str],
    now: pd.Timestamp,
    failure_share: Mapping[str, float] | None = None,
) -> PipelineForecast:
    """When will all ``tracks`` that are in the pipeline now be through its last step?

    ``tracks``: one row per track of the last weeks, with ``entered_at`` (tz-aware), ``due`` (the
    step that is due now, null once through) and a column for each of ``steps``, in order: when it
    was completed (NaT: not yet, or skipped if the step lies before ``due``). Leave out those that
    nothing will move: exhausted, stuck, failed. ``failure_share``: share of a step's attempts
    that fail (default none). What lies after ``now`` is ignored. Raises InputError.
    """
    at = moment(now)
    past = read_tracks(tracks, steps, at)
    inside = int(past.whole.waiting(np.array([at]))[0])
    as_of = clock(at)
    answer = partial(PipelineForecast, as_of=as_of, inside=inside)
    if inside == 0:
        return answer("empty", **conformal.told(as_of, (0.0,) * 5), basis="nothing is inside")
    shares = np.array([(failure_share or {}).get(step, 0.0) for step in steps])
    if ((shares < 0) | (shares >= 1)).any():
        raise InputError("failure_share holds a share outside 0 to 1: give failures / attempts")
    origins = conformal.past_origins(past.whole, at)
    found = ranges(past, origins, shares, conformal.LEVEL, conformal.TOLD)
    if np.isnan(found[-1]).any():
        return answer("insufficient_history", basis=conformal.too_little(past.whole, at))
    held, given = record(time_to_ready(past, origins), found[:, 3], found[:, 4])
    basis = f"the steps simulated together, and {given} past ranges: {held} held"
    told = conformal.told(as_of, found[-1])
    return answer("draining", **told, held=held, given=given, basis=basis)


def read_tracks(tracks: pd.DataFrame, steps: Sequence[str], at: float) -> Tracks:
    """The histories of the pipeline and its steps, as known ``at`` that moment."""
    absent = [c for c in ("entered_at", "due", *steps) if c not in tracks.columns]
    if absent or not steps:
        raise InputError(f"tracks has no column {', '.join(absent) or 'of steps'}: see pipeline")
    entered = seconds(tracks["entered_at"], "tracks.entered_at")
    done = np.stack([seconds(tracks[step], f"tracks.{step}") for step in steps], axis=1)
    place = {step: number for number, step in enumerate(steps)}
    due = tracks["due"].map(place).fillna(len(steps)).to_numpy(np.int64)
    unknown = tracks["due"].notna() & ~tracks["due"].isin(list(steps))
    if unknown.any():
        raise InputError(f"tracks.due holds {tracks['due'][unknown].iloc[0]!r}: not one of steps")
    present = ~np.isnan(entered) & (entered <= at)
    entered, done, due = entered[present], done[present], due[present]
    ready = np.where(due == len(steps), np.fmax.reduce(done, axis=1, initial=-np.inf), np.inf)
    histories = []
    arrived = entered.copy()
    for number in range(len(steps)):
        mine = done[:, number]
        here = (due == number) | ((due > number) & ~np.isnan(mine))
        came, went = arrived[here & (arrived <= at)], mine[here & (due > number) & (mine <= at)]
        histories.append(History(came, went))
        arrived = np.fmax(arrived, np.where(due > number, mine, np.nan))
    left = ready[(ready <= at) & np.isfinite(ready)]
    last_ready = np.maximum.accumulate(np.where(ready <= at, ready, np.inf)[np.argsort(entered)])
    return Tracks(History(entered, left), last_ready, histories)


def time_to_ready(past: Tracks, moments: Floats) -> Floats:
    """Seconds until all that was inside at each moment had left; NaN if it is not known yet."""
    place = np.searchsorted(past.whole.arrivals, moments, "right") - 1
    ready = past.last_ready[np.maximum(place, 0)]
    known = (place >= 0) & np.isfinite(ready) & (ready > moments)
    return np.where(known, ready - moments, np.nan)


def ranges(
    past: Tracks, origins: Floats, shares: Floats, level: float, probabilities: Sequence[float]
) -> Floats:
    """Seconds to ready per origin and probability; each from what was known at the origin."""
    place, moments = conformal.grid(past.whole, origins, conformal.STEP, conformal.WARM_UP)
    inside = past.whole.waiting(moments)
    use = (inside > 0) & (past.whole.done(moments) >= conformal.MIN_TARGET)
    place, moments, inside = place[use], moments[use], inside[use]
    if not len(place):
        return np.full((len(origins), len(probabilities)), np.nan)
    estimates, prior = conformal.experts(past.whole, moments, inside)
    simulated = _simulate(past, moments, shares, np.exp(np.median(estimates, axis=1)))
    rows = conformal.Trials(
        place=place,
        whole=np.ones(len(place), dtype=bool),
        began=moments,
        experts=np.column_stack([estimates, simulated]),
        prior=np.column_stack([prior, np.full(len(place), 0.02)]),
        took=time_to_ready(past, moments),
        targets=1,
    )
    judged = np.ones(len(origins), dtype=bool)
    return conformal.calibrate(rows, origins, conformal.STEP, level, judged, probabilities)


def _simulate(past: Tracks, moments: Floats, shares: Floats, length: Floats) -> Floats:
    """Log seconds until all that was inside at each moment is through."""
    longest = 3 * np.quantile(length, 0.95)
    width = next((w for w in WIDTHS if w * BINS >= longest), WIDTHS[-1])
    capacity = np.stack([_capacity(step, moments, width) for step in past.steps], axis=-1)
    queue = np.stack([step.waiting(moments) for step in past.steps], axis=1).astype(float)
    delays = [max(round(seconds / width), 1) for seconds in BACKOFF]
    mix = np.stack([np.ones_like(shares), shares, shares**2])
    mix /= mix.sum(axis=0)
    back = np.zeros((max(delays) + 1, *queue.shape))
    total = queue.sum(axis=1)
    left, slots = total.copy(), capacity.shape[1]
    took = np.full(len(queue), np.nan)
    per_bin = np.ascontiguousarray(np.moveaxis(capacity / (1 - shares), 1, 0))
    for bin_ in range(BINS):
        turn = bin_ % len(back)
        queue += back[turn]
        back[turn] = 0.0
        attempts = np.minimum(queue, per_bin[bin_ % slots])
        queue -= attempts
        failed = attempts * shares
        for delay, share in zip(delays, mix, strict=True):
            back[(turn + delay) % len(back)] += failed * share
        passed = attempts - failed
        queue[:, 1:] += passed[:, :-1]
        left -= passed[:, -1]
        took[np.isnan(took) & (left < 0.5)] = (bin_ + 1) * width
        if bin_ % 8 == 0 and left.max() < 0.5:
            break
    # What has not finished goes on at the pace it had.
    through = np.maximum(total - left, 1e-2 * total)
    took = np.where(np.isnan(took), BINS * width * total / through, took)
    found: Floats = np.log(took)
    return found


def _capacity(step: History, moments: Floats, width: float) -> Floats:
    """Completions per bin and time of day that each moment had seen, while work waited.

    Shape (moments, bins of a day), beginning at the moment's own time of day. All moments lie on
    one grid of bins, so that the past is counted once.
    """
    days, slots = PROFILE, round(DAY / width)
    last = np.rint((moments - moments[0]) / width).astype(np.int64) + days * slots
    edges = moments[0] + width * np.arange(-days * slots, last[-1] - days * slots + 1)
    queued = step.waiting(edges) > 0
    busy = (queued[:-1] & queued[1:]).astype(float)
    done = np.diff(step.done(edges)).astype(float)

    def by_time_of_day(counts: Floats) -> Floats:
        """Sums over the last ``days`` days, for each of the last ``slots`` bins."""
        padded = np.concatenate([counts, np.zeros(-len(counts) % slots)]).reshape(-1, slots)
        total = np.concatenate([np.zeros((1, slots)), np.cumsum(padded, axis=0)])
        over = (total[days:] - total[:-days]).ravel()
        place = last[:, None] - slots + np.arange(slots) - (days - 1) * slots
        found: Floats = over[place]
        return found

    total, times = by_time_of_day(done * busy), by_time_of_day(busy)
    ever = times.sum(axis=1, keepdims=True)
    idle = by_time_of_day(done).mean(axis=1, keepdims=True) / days
    overall = np.maximum(total.sum(axis=1, keepdims=True) / np.maximum(ever, 1), idle)
    found: Floats = np.where(times > 0, total / np.maximum(times, 1), overall) + 1e-9
    return found
