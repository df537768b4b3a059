"""How often do the ranges hold, and how narrow are they? Every method on every kind of queue.

    python benchmarks/forecast_methods.py [--seeds 3]     # of each generator, a few minutes

Per method: coverage of its 80% ranges (pooled over seeds), our interval score as a share of its own
on the rows where both give a range, and the share of rows without a range.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import results

from generators import GENERATORS, START, STEPS, as_known, seven_steps
from queue_insights.forecast import backtest, conformal, endtoend, forecast_step, pipeline, score
from queue_insights.forecast.history import HOUR, WEEK

METHODS = ["conformal", "block_bootstrap", "bootstrap", "rate"]


@dataclass
class Kind:
    """What was found on one kind of queue: shares of our ranges, theirs by method, and our interval
    score as a share of each method's."""

    name: str
    held: float
    abstained: float
    held_by: dict[str, float]
    score: dict[str, float]


def compare(name: str, logs: list[pd.DataFrame]) -> Kind:
    found = {m: pd.concat([backtest(log, method=m) for log in logs]) for m in METHODS}
    ours = score(found["conformal"])
    kind = Kind(name, ours["coverage"], ours["abstained"], {}, {})
    for method in METHODS[1:]:
        given = found["conformal"]["p50_seconds"].notna() & found[method]["p50_seconds"].notna()
        mine, theirs = (score(found[m][given.to_numpy()]) for m in ("conformal", method))
        kind.held_by[method] = score(found[method])["coverage"]
        kind.score[method] = mine["winkler"] / theirs["winkler"]
    beside = (f"{m} {kind.score[m]:.2f} ({kind.held_by[m]:.2f} held)" for m in METHODS[1:])
    print(f"{name}: {kind.held:.2f} held; interval score beside {', '.join(beside)}", flush=True)
    return kind


def of_kinds(kinds: list[Kind]) -> Iterator[results.Result]:
    for kind in kinds:
        yield results.Result(
            f"80% ranges, {kind.name}: share that held, off 0.80 by",
            f"{kind.held:.2f}",
            f"0.80; by rate {kind.held_by['rate']:.2f}",
            abs(kind.held - 0.8),
            0.04,
        )
    most = max(kind.abstained for kind in kinds)
    yield results.Result(
        "80% ranges: rows without one, the most of any kind", f"{most:.2f}", "", most, 0.2
    )
    for method in ("block_bootstrap", "rate"):
        scores = [kind.score[method] for kind in kinds]
        yield results.Result(
            f"80% ranges: interval score beside {method}, median of {len(kinds)} kinds",
            f"better in {sum(each <= 1 for each in scores)} of {len(kinds)}",
            f"at worst {max(scores):.2f}",
            statistics.median(scores),
            1.0,
        )


def end_to_end(seed: int) -> tuple[float, float, float]:
    tracks, share = seven_steps(seed)
    end = START + pd.Timedelta("60D")
    past = endtoend.read_tracks(as_known(tracks, end), STEPS, end.timestamp())
    origins = np.arange(past.whole.first + WEEK, end.timestamp(), 6 * HOUR)
    told = endtoend.ranges(past, origins, np.full(len(STEPS), share), 0.8, (0.1, 0.9))
    per_step = np.zeros((len(origins), 2))
    for queue in past.steps:
        use = ~queue.stalled(origins)
        alone = conformal.ranges(queue, origins, 6 * HOUR, 0.8, use, (0.1, 0.9))
        alone[~use] = np.nan  # as forecast_step says nothing of a stalled step
        per_step += np.where((queue.waiting(origins) == 0)[:, None], 0.0, alone)
    actual = endtoend.time_to_ready(past, origins)
    use = ~np.isnan(actual) & ~np.isnan(told[:, 0]) & ~np.isnan(per_step[:, 0])

    def judge(ranges: np.ndarray) -> tuple[float, float]:
        lower, upper, y = ranges[use, 0], ranges[use, 1], actual[use]
        outside = np.maximum(lower - y, 0) + np.maximum(y - upper, 0)
        return float(np.mean(outside == 0)), float(np.mean(upper - lower + 10 * outside))

    (held, ours), (sum_held, sums) = judge(told), judge(per_step)
    return held, sum_held, ours / sums


def eta_seconds() -> tuple[float, float]:
    """CPU seconds of the seven steps' forecasts, and of the pipeline's."""
    tracks, share = seven_steps(1)
    now = START + pd.Timedelta("58D")
    known = as_known(tracks, now)

    def steps() -> None:
        arrived = known["entered_at"]
        for name in STEPS:
            forecast_step(arrived.dropna(), known[name].dropna(), now)
            arrived = known[name]

    def whole() -> None:
        pipeline(known, STEPS, now, dict.fromkeys(STEPS, share))

    taken = []
    for work in (steps, whole):
        work()
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return taken[0], taken[1]


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of each generator")
    given = parser.parse_args()
    seeds = range(101, 101 + given.seeds)
    logs = ((name, [make(seed) for seed in seeds]) for name, make in GENERATORS.items())
    found = list(of_kinds([compare(name, each) for name, each in logs]))
    held, by_sum, ratios = (np.mean(each) for each in zip(*map(end_to_end, seeds), strict=True))
    found.append(
        results.Result(
            "80% ranges end to end, seven steps: share that held, off 0.80 by",
            f"{held:.2f}",
            f"{by_sum:.2f} by the sum of the steps'",
            abs(held - 0.8),
            0.1,
        )
    )
    found.append(
        results.Result("  and their interval score beside that sum's", "", "", float(ratios), 1.0)
    )
    steps, whole = eta_seconds()
    found.append(
        results.Result("eta: seven steps' computing, seconds", f"{steps:.2f} s", "", steps, 0.3)
    )
    print(f"the pipeline's computing {whole:.2f} s")
    results.report(found, given.json)


if __name__ == "__main__":
    main()
