"""The past of one queue as two sorted curves: what had arrived, and what had been completed."""

from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from queue_insights.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HOUR, DAY, WEEK = 3600.0, 86400.0, 604800.0
CHANCE = 2.0  # standard deviations, which a steady queue exceeds in two of a hundred readings


def seconds(times: pd.Series, name: str) -> Floats:
    """Unix seconds of tz-aware ``times`` in any zone or mix of zones; NaN for NaT.

    Raises InputError for naive times, and for anything that is not a time.
    """
    aware = times
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        given = times.dropna()
        if any(getattr(value, "tzinfo", None) is None for value in given):
            what = f"{name} holds {times.dtype}, not times with a time zone"
            raise InputError(f"{what}: localise it, e.g. with .dt.tz_localize('UTC')")
        aware = pd.to_datetime(times, utc=True)
    micros = aware.dt.tz_convert("UTC").dt.as_unit("us").dt.tz_localize(None).to_numpy()
    return np.where(np.isnat(micros), np.nan, micros.astype(np.int64) / 1e6)


class History:
    """Arrivals and completions of one queue, in Unix seconds, in any order; ``carried`` items
    waited already before the first arrival given."""

    def __init__(self, arrivals: Floats, completions: Floats, carried: int = 0) -> None:
        self.arrivals = np.sort(arrivals)
        self.completions = np.sort(completions)
        self.carried = carried
        both = np.concatenate([arrivals, completions])
        span = (both.min(), both.max()) if len(both) else (np.nan, np.nan)
        self.first, self.last = map(float, span)

    def done(self, at: Floats) -> Ints:
        """Completions up to and including each moment."""
        return np.searchsorted(self.completions, at, "right")

    def arrived(self, at: Floats) -> Ints:
        return np.searchsorted(self.arrivals, at, "right") + self.carried

    def waiting(self, at: Floats) -> Ints:
        return np.maximum(self.arrived(at) - self.done(at), 0)

    def time_to(self, since: Floats, count: Ints) -> Floats:
        """Seconds from each moment to its ``count``-th completion; NaN where history ends."""
        place = self.done(since) + count - 1
        known = place < len(self.completions)
        if not known.any():
            return np.full(since.shape, np.nan)
        return np.where(known, self.completions[np.where(known, place, 0)] - since, np.nan)

    def thinned(self, most: int) -> tuple[int, "History"]:
        """(how many count as one, the history of these): at most about ``most`` each of arrivals
        and completions, as with more of them a forecast only takes longer."""
        unit = max(1, len(self.arrivals) // most, len(self.completions) // most)
        came, went = (each[unit // 2 :: unit] for each in (self.arrivals, self.completions))
        waiting = self.carried + len(self.arrivals) - len(self.completions)
        return unit, History(came, went, -(-waiting // unit) - len(came) + len(went))

    @cached_property
    def _changes(self) -> tuple[Floats, Ints]:
        """(times of all that happened, how many waited after each)."""
        times = np.concatenate([self.arrivals, self.completions])
        order = np.argsort(times, kind="stable")
        change = np.where(order < len(self.arrivals), 1, -1)
        return times[order], np.maximum(self.carried + np.cumsum(change), 0)

    def area(self, at: Floats, most: float) -> Floats:
        """How many waited, summed over the seconds up to each moment; more than ``most`` at a time
        count as ``most``, so that with 1 it is for how long work waited at all."""
        times, waiting = self._changes
        height = np.minimum(waiting, most).astype(float)
        total = np.concatenate([[0.0], np.cumsum(height[:-1] * np.diff(times))])
        last = np.maximum(np.searchsorted(times, at, "right") - 1, 0)
        return total[last] + np.maximum(at - times[last], 0.0) * height[last]

    def lately(self, at: Floats) -> tuple[Floats, Floats, Floats]:
        """(arrivals, completions, seconds) of the last week before each moment; of the last day,
        where in it they differ by more than chance; never before the first event."""
        week, day = (np.clip(np.nan_to_num(at - self.first), HOUR, most) for most in (WEEK, DAY))
        came, went = self._both(at, day)
        length = np.where(np.abs(came - went) > self._chance(came, went), day, week)
        return *self._both(at, length), length

    def _both(self, at: Floats, length: Floats) -> tuple[Floats, Floats]:
        came = self.arrived(at) - self.arrived(at - length)
        return came.astype(float), (self.done(at) - self.done(at - length)).astype(float)

    def _chance(self, came: Floats, went: Floats) -> Floats:
        """By how much two counts of events at random moments may differ without a reason."""
        return CHANCE * np.sqrt(came + went)

    def growing(self, at: Floats, speed: float = 1.0) -> Bools:
        """Whether lately more came than was done (at ``speed`` times the pace), beyond chance."""
        came, went, _ = self.lately(at)
        return came - went * speed > self._chance(came, went * speed)

    def stalled(self, at: Floats) -> Bools:
        """Whether work waits and has not moved for over twice the longest pause so far.

        Nights, weekends and hourly batches are pauses that a queue has shown before, so they do
        not count as stalls once seen; nothing under an hour does, nor time when nothing waits.
        """
        ends, done = self.completions, self.done(at)
        if not len(ends):
            return np.zeros(at.shape, dtype=bool)
        came = np.append(self.arrivals, np.inf)[np.searchsorted(self.arrivals, ends, "right")]
        began = np.where(self.waiting(ends) > 0, ends, came)  # of each pause after a completion
        pauses = np.append(0.0, np.maximum(ends[1:] - began[:-1], 0.0))
        last = np.maximum(done - 1, 0)
        enough = np.maximum(2 * np.maximum.accumulate(pauses)[last], HOUR)
        return (done > 0) & (self.waiting(at) > 0) & (at - began[last] > enough)
