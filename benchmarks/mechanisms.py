"""What queues are made of in simulations: arrivals, servers, batches, days and nights."""

import heapq
from collections import deque
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

START = pd.Timestamp("2025-01-06", tz="UTC")  # a Monday
HOUR, DAY, WEEK = 3600.0, 86400.0, 604800.0
Speed = Callable[[float], float]


def frame(arrived: np.ndarray, completed: np.ndarray, end: float = np.inf) -> pd.DataFrame:
    """Seconds since START as a frame; what had not completed by ``end`` is NaT."""
    keep = arrived <= end
    done = np.where(completed <= end, completed, np.nan)
    times = {"arrived_at": arrived[keep], "completed_at": done[keep]}
    return pd.DataFrame(
        {name: START + pd.to_timedelta(each, unit="s").round("us") for name, each in times.items()}
    )


def events(arrived: ArrayLike, completed: ArrayLike) -> pd.DataFrame:
    """Hours since START as a frame of events."""
    return frame(np.array(arrived, float) * HOUR, np.array(completed, float) * HOUR)


def regular(hours: int = 24 * 12, lag: int = 40) -> pd.DataFrame:
    """One item every quarter of an hour, completed ``lag`` quarters later: always ``lag`` wait."""
    arrived = np.arange(0, hours, 0.25)
    return events(arrived, arrived + lag / 4 + 0.01)


def poisson(
    rng: np.random.Generator, rate: Callable[[np.ndarray], np.ndarray], peak: float, end: float
) -> np.ndarray:
    """Arrivals of a Poisson process whose hourly rate is ``rate(seconds)``, at most ``peak``."""
    count = rng.poisson(peak * end / HOUR)
    times = np.sort(rng.uniform(0, end, count))
    return times[rng.uniform(0, peak, count) < rate(times)]


def constant(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: np.full(t.shape, value)


def serve(
    arrived: np.ndarray,
    work: np.ndarray,
    servers: int,
    speed: Speed | None = None,
    shuffled: np.random.Generator | None = None,
) -> np.ndarray:
    """Completion times of jobs of ``work`` seconds on ``servers`` equal servers, first come first
    served unless ``shuffled``.

    ``speed(t)`` scales a server at the time it starts a job; 0 means that nothing starts, and is
    asked again every five minutes.
    """
    rank = arrived if shuffled is None else shuffled.uniform(size=len(arrived))
    arrival_order = np.argsort(arrived, kind="stable")
    free = [0.0] * servers
    heapq.heapify(free)
    waiting: list[tuple[float, int]] = []
    done = np.full(len(arrived), np.inf)
    next_arrival = 0
    while next_arrival < len(arrived) or waiting:
        now = heapq.heappop(free)
        if not waiting:
            now = max(now, arrived[arrival_order[next_arrival]])
        while next_arrival < len(arrived) and arrived[arrival_order[next_arrival]] <= now:
            job = int(arrival_order[next_arrival])
            heapq.heappush(waiting, (rank[job], job))
            next_arrival += 1
        rate = 1.0 if speed is None else speed(now)
        if rate <= 0:
            heapq.heappush(free, now + 300.0)
            if now > arrived.max() + 60 * DAY:
                break
            continue
        _, job = heapq.heappop(waiting)
        done[job] = now + work[job] / rate
        heapq.heappush(free, done[job])
    return done


def batches(arrived: np.ndarray, every: float, size: int, end: float, lag: float) -> np.ndarray:
    """Completion times under a worker that takes up to ``size`` items at every full ``every``."""
    done = np.full(len(arrived), np.inf)
    waiting: deque[int] = deque()
    order = np.argsort(arrived, kind="stable")
    position = 0
    for start in np.arange(every, end + every, every):
        while position < len(order) and arrived[order[position]] <= start:
            waiting.append(int(order[position]))
            position += 1
        for taken in range(min(size, len(waiting))):
            done[waiting.popleft()] = start + lag * (taken + 1)
    return done


def daily(t: np.ndarray, low: float, high: float, weekend: float = 1.0) -> np.ndarray:
    """A rate between ``low`` at 3:00 and ``high`` at 15:00, scaled on Saturday and Sunday."""
    shape = low + (high - low) * (1 - np.cos(2 * np.pi * (t / DAY - 3 / 24))) / 2
    return shape * np.where((t % WEEK) >= 5 * DAY, weekend, 1.0)
