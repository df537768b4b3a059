"""Queue histories whose mechanism is known, to judge forecasts by: ``GENERATORS[name](seed)``.

Each returns the frame that ``forecast.backtest`` takes: tz-aware ``arrived_at`` and
``completed_at`` (NaT where not completed by the end). Nothing here knows how forecasts are made.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from mechanisms import (
    DAY,
    HOUR,
    START,
    WEEK,
    Speed,
    batches,
    constant,
    daily,
    frame,
    poisson,
    serve,
)

Rng = np.random.Generator
GENERATORS: dict[str, Callable[[int], pd.DataFrame]] = {}


def queue(days: int) -> Callable[..., Callable[[int], pd.DataFrame]]:
    """Make a generator of *days* from a function of a random generator and the end that gives when
    items arrived and when they were done."""

    def made(mechanism: Callable[[Rng, float], tuple[np.ndarray, np.ndarray]]) -> Callable:
        def generate(seed: int) -> pd.DataFrame:
            return frame(*mechanism(np.random.default_rng(seed), days * DAY), days * DAY)

        GENERATORS[mechanism.__name__] = generate
        return generate

    return made


def served(
    rng: Rng, arrived: np.ndarray, servers: int, hourly: float, speed: Speed | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Arrivals, and when *servers* that together do so many an hour have done them."""
    return arrived, serve(
        arrived, rng.exponential(servers * HOUR / hourly, len(arrived)), servers, speed
    )


def _steady(rng: Rng, end: float) -> tuple[np.ndarray, np.ndarray]:
    return served(rng, np.concatenate([np.zeros(60), poisson(rng, constant(29), 29, end)]), 3, 30)


@queue(days=60)
def steady(rng, end):
    return _steady(rng, end)


@queue(days=60)
def heavy_service(rng, end):
    arrived = poisson(rng, constant(20), 20, end)
    work = rng.lognormal(np.log(1674.0) - 0.72, 1.2, len(arrived))
    return arrived, serve(arrived, work, 10)


@queue(days=70)
def bursty(rng, end):
    """Day and night, weekends, over a constant capacity: a backlog by day, idle at night."""
    return served(rng, poisson(rng, lambda t: daily(t, 5, 115, 0.25), 115, end), 4, 62)


@queue(days=90)
def office(rng, end):
    """People at work Monday to Friday, 9 to 17 in New York (clocks change), work comes always."""
    arrived = poisson(rng, lambda t: daily(t, 4, 16, 0.6), 16, end)
    origin = START.tz_convert("America/New_York")
    offsets = [(origin + pd.Timedelta(days=d)).utcoffset().total_seconds() for d in range(200)]

    def speed(t: float) -> float:
        local = t + offsets[min(int(t // DAY), 199)]
        return 1.0 if local % WEEK < 5 * DAY and 9 <= (local % DAY) / HOUR < 17 else 0.0

    return served(rng, arrived, 5, 46, speed)


@queue(days=60)
def rate_change(rng, end):
    """Capacity falls to 60% for good on day 20 and doubles on day 40."""
    arrived = poisson(rng, lambda t: daily(t, 20, 50), 50, end)
    speed = lambda t: 1.0 if t < 20 * DAY else 0.6 if t < 40 * DAY else 1.3  # noqa: E731
    return served(rng, arrived, 4, 38, speed)


def rate_step(seed: int) -> pd.DataFrame:
    """Capacity changes once, on day 30: to 95% or, with an even seed, to 150%."""
    rng, end, later = np.random.default_rng(seed), 60 * DAY, 0.95 if seed % 2 else 1.5
    arrived = poisson(rng, lambda t: daily(t, 20, 40), 40, end)
    speed = lambda t: 1.0 if t < 30 * DAY else later  # noqa: E731
    return frame(*served(rng, arrived, 4, 31, speed), end)


GENERATORS["rate_step"] = rate_step


@queue(days=60)
def hourly_batch(rng, end):
    """A cron job that takes up to 60 items at the full hour; day and night arrivals."""
    arrived = poisson(rng, lambda t: daily(t, 10, 100, 0.7), 100, end)
    return arrived, batches(arrived, HOUR, 60, end, 2.0)


@queue(days=45)
def hourly_flush(rng, end):
    """A cron job that takes all there is; origins fall at odd minutes."""
    arrived = 1111.0 + poisson(rng, lambda t: daily(t, 30, 160), 160, end - 1111)
    return arrived, batches(arrived, HOUR, 10**6, end, 1.5)


@queue(days=45)
def growing(rng, end):
    return served(rng, poisson(rng, constant(33), 33, end), 3, 30)


@queue(days=60)
def nightly_load(rng, end):
    """A dump of a few hundred items every night at 1:00, larger on Mondays; else a trickle."""
    loads = [
        d * DAY
        + HOUR
        + np.sort(rng.uniform(0, 120, int(rng.lognormal(6.2, 0.5) * (1 + (d % 7 == 0)))))
        for d in range(60)
    ]
    arrived = np.sort(np.concatenate([*loads, poisson(rng, constant(3), 3, end)]))
    work = rng.lognormal(np.log(2 * HOUR / 45.0) - 0.125, 0.5, len(arrived))
    return arrived, serve(arrived, work, 2)


@queue(days=80)
def heavy_arrivals(rng, end):
    """Pareto-sized uploads at Poisson times: most are small, a few take days to clear."""
    times = poisson(rng, constant(1.2), 1.2, end)
    sizes = np.minimum(6 * (1 + rng.pareto(1.4, len(times))), 3000).astype(int)
    arrived = np.sort(np.repeat(times, sizes) + rng.uniform(0, 600, sizes.sum()))
    work = rng.exponential(3 * HOUR / 30.0, len(arrived))
    return arrived, serve(arrived, work, 3, shuffled=rng)


@queue(days=70)
def outages(rng, end):
    """Nothing is done for 1 to 14 hours, about twice a week."""
    begins = np.sort(rng.uniform(0, end, 20))
    ends = begins + rng.uniform(1, 14, 20) * HOUR
    arrived = poisson(rng, lambda t: daily(t, 15, 45), 45, end)
    return served(rng, arrived, 4, 37, lambda t: float(not np.any((begins <= t) & (t < ends))))


@queue(days=80)
def drifting(rng, end):
    """Capacity wanders: a random walk in logarithm that returns to its mean in days."""
    level = np.zeros(80 * 24 + 2400)
    for i in range(1, len(level)):
        level[i] = 0.985 * level[i - 1] + rng.normal(0, 0.06)
    arrived = poisson(rng, constant(30), 30, end)
    return served(rng, arrived, 3, 33, lambda t: float(np.exp(level[int(t // HOUR)])))


@queue(days=80)
def regimes(rng, end):
    """Capacity jumps between slow, usual and fast, staying a day or two in each."""
    changes = np.cumsum(rng.exponential(1.5 * DAY, 200))
    levels = rng.choice([0.4, 1.0, 1.8], 201)
    arrived = poisson(rng, lambda t: daily(t, 15, 45), 45, end)
    return served(rng, arrived, 3, 33, lambda t: float(levels[int(np.searchsorted(changes, t))]))


@queue(days=60)
def unlimited(rng, end):
    """As many servers as items: what waits is what arrived lately (builds, reviews)."""
    arrived = poisson(rng, lambda t: daily(t, 4, 40, 0.3), 40, end)
    return arrived, arrived + rng.lognormal(np.log(2 * HOUR), 0.9, len(arrived))


@queue(days=60)
def autoscaled(rng, end):
    """One server more for every 40 items that arrived in the last two hours, at most eight."""
    arrived = poisson(rng, lambda t: daily(t, 10, 130, 0.4), 130, end)

    def speed(t: float) -> float:
        lately = np.searchsorted(arrived, t) - np.searchsorted(arrived, t - 2 * HOUR)
        return float(np.clip(lately // 40, 1, 8))

    return served(rng, arrived, 2, 22, speed)


@queue(days=300)
def tickets(rng, end):
    """A slow desk: a dozen tickets a day in working hours, in any order, 2% never closed."""
    arrived = poisson(rng, lambda t: daily(t, 0.05, 1.3, 0.2), 1.3, end)

    def speed(t: float) -> float:
        return 1.0 if t % WEEK < 5 * DAY and 8 <= (t % DAY) / HOUR < 18 else 0.0

    mean = 0.88 * 2 * (5 * 10 / (7 * 24)) * end / len(arrived)
    work = rng.lognormal(np.log(mean) - 0.5, 1.0, len(arrived))
    done = serve(arrived, work, 2, speed, shuffled=rng)
    done[rng.uniform(size=len(done)) < 0.02] = np.inf
    return arrived, done


@queue(days=100)
def holidays(rng, end):
    """Nothing arrives and nothing is done in two weeks of the quarter, nor at weekends."""

    def working(t: np.ndarray) -> np.ndarray:
        return ~np.isin((t // WEEK).astype(int), [4, 9]) & ((t % WEEK) < 5 * DAY)

    arrived = poisson(rng, lambda t: daily(t, 2, 30) * working(t), 30, end)
    return served(rng, arrived, 3, 20, lambda t: float(working(np.array([t]))[0]))


@queue(days=90)
def jobs(rng, end):
    """A compute cluster: users submit arrays of jobs of alike length, hours long, by day."""
    times = poisson(rng, lambda t: daily(t, 0.3, 3.5, 0.4), 3.5, end)
    sizes = np.minimum(1 + rng.pareto(1.1, len(times)) * 3, 150).astype(int)
    length = np.minimum(rng.lognormal(np.log(1.5 * HOUR), 1.3, len(times)), 30 * HOUR)
    arrived = np.repeat(times, sizes) + rng.uniform(0, 60, sizes.sum())
    work = np.repeat(length, sizes) * rng.lognormal(0, 0.3, sizes.sum())
    return arrived, serve(arrived, work, int(work.sum() / end / 0.85) + 1)


STEPS = ["download", "align", "translate", "separate", "segment", "enhance", "clip"]
BACKOFF = (300.0, 900.0)
FAILED = 0.05  # of the attempts


def seven_steps(seed: int, days: int = 60, hourly: float = 20.0) -> tuple[pd.DataFrame, float]:
    """A pipeline of seven steps: (entered_at and completed_at per step; failure share).

    Capacities lie 5 to 35% above the arrivals, and one step stops for a day or so now and then, so
    that a backlog travels down the steps. An item fails at most twice at a step, and backs off.
    """
    rng, end = np.random.default_rng(seed), days * DAY
    rate = lambda t: daily(t, hourly * 0.2, hourly * 1.8, 0.6)  # noqa: E731
    arrived = entered = poisson(rng, rate, 2 * hourly, end)
    columns = {"entered_at": entered}
    for step in STEPS:
        servers = int(rng.integers(2, 7))
        mean = servers * HOUR / (hourly * 0.9 * (1.05 + 0.35 * rng.uniform()))
        work = rng.lognormal(np.log(mean) - 0.18, 0.6, len(arrived))
        stops = np.sort(rng.uniform(0, end, int(rng.integers(1, 4))))
        ends = stops + rng.uniform(4, 30, len(stops)) * HOUR
        failures = rng.geometric(1 - FAILED, len(arrived)) - 1
        back = arrived + sum(np.where(failures > i, BACKOFF[i], 0) for i in range(2))

        def speed(t: float, stops: np.ndarray = stops, ends: np.ndarray = ends) -> float:
            return float(not np.any((stops <= t) & (t < ends)))

        columns[step] = arrived = serve(back, work, servers, speed)
    times = {name: pd.to_timedelta(c, unit="s").round("us") for name, c in columns.items()}
    return START + pd.DataFrame(times), FAILED
