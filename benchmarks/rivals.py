"""How good past ranges were, and simple ways to make them, to compare ours with.

block_bootstrap and bootstrap: hourly completions of the last week resampled in blocks of 24 hours,
or one by one. rate: waiting over the average rate, times the quantiles of the past errors of that.
"""

import numpy as np
import pandas as pd

from queue_insights.forecast import backtest
from queue_insights.forecast.history import HOUR, WEEK, Floats, History, Ints
from queue_insights.forecast.past import RANGE, read_events

RIVALS = ("block_bootstrap", "bootstrap", "rate")
ASKED = (0.5, 0.1, 0.9)  # in the order of RANGE
PATHS = 200  # resampled futures
LONGEST = 200_000  # hours of one, beyond which a bootstrap abstains
MIN_ERRORS = 10


def score(backtest: pd.DataFrame, level: float = 0.8) -> dict[str, float]:
    """How good the ranges of a ``backtest`` at the same ``level`` were.

    coverage: share of ranges that held. winkler: mean interval score in seconds, the width and
    2 / (1 - level) times the distance by which the actual lies outside (Gneiting and Raftery
    2007, eq. 43; lower is better). mdape: median of |p50 - actual| / actual. abstained: share of
    all rows without a range. The first three over the rows with a range; NaN if there are none.
    """
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


def by_rival(method: str, events: pd.DataFrame, ours: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rows of ``backtest(events)`` (*ours*, where it is known already), their ranges made by
    one of RIVALS instead, at 80%."""
    found = (backtest(events) if ours is None else ours).copy()
    past, first = read_events(events), events["arrived_at"].min()
    steps = np.rint((found["origin"] - first) / pd.Timedelta("6h")).to_numpy()
    last = int(steps.max()) if len(found) else -1
    origins = past.arrivals[0] + 6 * HOUR * np.arange(last + 1)
    if method == "rate":
        given = _by_rate(past, origins)
    else:
        block = 24 if method == "block_bootstrap" else 1
        given = np.full((len(origins), 3), np.nan)
        for turn in steps.astype(int):
            given[turn] = _by_resampling(past, origins[turn], block, turn - 28)
    found[RANGE] = given[steps.astype(int)]
    return found


def _by_rate(past: History, origins: Floats) -> Floats:
    found = np.full((len(origins), 3), np.nan)
    waiting = past.waiting(origins)
    rate = (past.done(origins) - past.done(origins - WEEK)) / WEEK
    use = (waiting >= 20) & (rate > 0) & (np.arange(len(origins)) >= 28)
    estimate = np.divide(waiting, rate, out=np.full(len(origins), np.nan), where=use)
    actual = past.time_to(origins, np.maximum(waiting, 1))
    errors = np.log(actual / estimate)
    for turn in np.flatnonzero(use):
        known = errors[:turn][origins[:turn] + actual[:turn] <= origins[turn]]
        known = known[~np.isnan(known)]
        if len(known) >= MIN_ERRORS:
            found[turn] = estimate[turn] * np.exp(np.quantile(known, ASKED))
    return found


def _by_resampling(past: History, origin: float, block: int, seed: int) -> Floats:
    counts = np.diff(past.done(origin - HOUR * np.arange(168, -1, -1.0)))
    waiting = int(past.waiting(np.array([origin]))[0])
    if counts.sum() < 2:
        return np.full(3, np.nan)
    mean = counts.mean() * block
    blocks = int(waiting / mean + 6 * np.sqrt(waiting / mean)) + 8
    if blocks * block > LONGEST:
        return np.full(3, np.nan)
    return np.quantile(_resampled(counts, waiting, block, blocks, seed), ASKED)


def _resampled(counts: Ints, waiting: int, block: int, blocks: int, seed: int) -> Floats:
    """Seconds to ``waiting`` completions in PATHS futures made of blocks of hourly ``counts``."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, len(counts) - block + 1, (PATHS, blocks))
    future = counts[starts[..., None] + np.arange(block)].reshape(PATHS, -1)
    total = np.cumsum(future, axis=1)
    hour = np.minimum((total < waiting).sum(axis=1), total.shape[1] - 1)
    path = np.arange(PATHS)
    there = np.maximum(future[path, hour], 1)
    within = np.clip((waiting - (total[path, hour] - future[path, hour])) / there, 0, 1)
    found: Floats = (hour + within) * HOUR
    return found
