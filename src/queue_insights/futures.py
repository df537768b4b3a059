"""Resampled futures of a queue: arrivals and capacity, in blocks of whole days of its past."""

from dataclasses import dataclass

import numpy as np

from queue_insights.history import DAY, Floats, History

PATHS = 80
BINS = 600  # of one future
PER_DAY = (144, 24, 4, 1)  # bins of a day, the finest whose futures reach far enough is used
DAYS_BACK = 28


@dataclass(frozen=True)
class Futures:
    """Counts per bin of ``width`` seconds from now on; shape (PATHS, bins)."""

    width: float
    arrivals: Floats
    capacity: Floats


def bin_width(reach: float) -> float:
    """Seconds per bin, so that a future lasts ``reach`` seconds if it can."""
    enough = [n for n in PER_DAY if BINS * DAY / n >= reach]
    return DAY / (enough or PER_DAY[-1:])[0]


def resample(history: History, now: float, width: float, rng: np.random.Generator) -> Futures:
    """Futures made of past days, of the same weekday once two weeks are known.

    Capacity is what was completed while work waited through the bin; elsewhere at least the mean
    of the busy bins at that time of day, as an idle queue shows nothing of what it could do.
    """
    days = int(np.clip((now - history.first) // DAY, 1, DAYS_BACK))
    days -= days % 7 if days >= 14 else 0
    slots = round(DAY / width)
    edges = now - width * np.arange(days * slots, -1, -1.0)
    arrivals = np.diff(history.arrived(edges)).reshape(days, slots).astype(float)
    done = np.diff(history.done(edges)).reshape(days, slots).astype(float)
    queued = history.waiting(edges) > 0
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
    return Futures(width, *(c[source].reshape(PATHS, -1) for c in (arrivals, capacity)))


def time_to_empty(futures: Futures, waiting: int, clear: Floats) -> Floats:
    """Seconds until nothing waits on each path, inf where it never does within the future.

    ``clear`` (seconds, one per path): each path's capacity is scaled so that the ``waiting``
    items are done after that time; arrivals then come on top.
    """
    width, path = futures.width, np.arange(PATHS)
    done = np.cumsum(futures.capacity, axis=1)
    at = np.clip(clear / width, 1e-9, done.shape[1])
    full = np.minimum(at.astype(int), done.shape[1] - 1)
    before = np.where(full > 0, done[path, full - 1], 0.0)
    by_clear = before + (at - full) * futures.capacity[path, full]
    scale = np.clip(waiting / np.maximum(by_clear, 1e-9), 0.05, 20.0)
    left = waiting + np.cumsum(futures.arrivals - scale[:, None] * futures.capacity, axis=1)
    ever = (left <= 0).any(axis=1)
    first = np.argmax(left <= 0, axis=1)
    start = np.where(first > 0, left[path, first - 1], waiting)
    share = start / np.maximum(start - left[path, first], 1e-9)
    found = np.maximum((first + share) * width, clear)
    return np.where(ever, found, np.inf)
