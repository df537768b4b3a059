"""How often do the ranges hold, and how narrow are they? Every method on every kind of queue.

    python benchmarks/forecast_methods.py [seeds]     # default 3 seeds of each, a few minutes

Per method: coverage of its 80% ranges (pooled over seeds), interval score as a share of the 24 h
block bootstrap's on the rows where both give a range, and the share of rows without a range.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from generators import GENERATORS, START, STEPS, as_known, seven_steps
from queue_insights import conformal, endtoend
from queue_insights.forecast import backtest, forecast_step, pipeline, score
from queue_insights.history import HOUR, WEEK

METHODS = ["conformal", "block_bootstrap", "bootstrap", "rate"]


def compare(logs: list[pd.DataFrame]) -> str:
    found = {m: pd.concat([backtest(log, method=m) for log in logs]) for m in METHODS}
    cells = []
    for method in METHODS:
        both = (
            found[method]["p50_seconds"].notna() & found["block_bootstrap"]["p50_seconds"].notna()
        ).to_numpy()
        mine, theirs = score(found[method][both]), score(found["block_bootstrap"][both])
        whole = score(found[method])
        share = mine["winkler"] / theirs["winkler"]
        cells.append(f"{whole['coverage']:.2f} {min(share, 99):6.2f} {whole['abstained']:.2f}")
    return f"{len(found['rate']):5d}  " + "   ".join(cells)


def end_to_end(seed: int) -> str:
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
    return f"{int(use.sum()):5d}  {held:.2f}   {sum_held:.2f}   {ours / sums:.2f}"


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


def main(seeds: int) -> None:
    print(f"{'':18s} rows  " + "   ".join(f"{m[:16]:16s}" for m in METHODS))
    print(f"{'':18s}       " + "   ".join(["held  score none"] * len(METHODS)))
    for name, generate in GENERATORS.items():
        logs = [generate(seed) for seed in range(101, 101 + seeds)]
        print(f"{name:18s} {compare(logs)}", flush=True)
    print("\nend to end          rows  held   held by the sum of steps   score / sum's")
    for seed in range(101, 101 + seeds):
        print(f"{'seven_steps':18s} {end_to_end(seed)}", flush=True)
    steps, whole = eta_seconds()
    print(f"\neta: seven steps {steps:.3f} s, the pipeline {whole:.3f} s of computing")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
