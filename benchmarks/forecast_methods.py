"""How often do the ranges hold, and how narrow are they? Every method on every kind of queue.

    python benchmarks/forecast_methods.py [--seeds 3]     # of each generator, a few minutes

Per method: coverage of its 80% ranges (pooled over seeds), our interval score as a share of its own
on the rows where both give a range, and the share of rows without a range.
"""

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

import results
from generators import GENERATORS, START, STEPS, seven_steps
from queue_insights.forecast import backtest, forecast
from queue_insights.forecast.history import History, seconds
from rivals import RIVALS, by_rival, score


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
    each = [backtest(log) for log in logs]
    ours, scored = pd.concat(each), score(pd.concat(each))
    kind = Kind(name, scored["coverage"], scored["abstained"], {}, {})
    for method in RIVALS:
        pairs = zip(logs, each, strict=True)
        theirs = pd.concat([by_rival(method, log, found) for log, found in pairs])
        both = (ours["p50_seconds"].notna() & theirs["p50_seconds"].notna()).to_numpy()
        kind.held_by[method] = score(theirs)["coverage"]
        kind.score[method] = score(ours[both])["winkler"] / score(theirs[both])["winkler"]
    beside = (f"{m} {kind.score[m]:.2f} ({kind.held_by[m]:.2f} held)" for m in RIVALS)
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


def end_to_end(seed: int) -> float:
    """The share of past ranges that held until all that was inside had passed the last step."""
    tracks, _ = seven_steps(seed)
    log = pd.DataFrame({"arrived_at": tracks["entered_at"], "completed_at": tracks["clip"]})
    held = []
    for row in backtest(log, min_waiting=1).dropna().itertuples():
        inside = (tracks["entered_at"] <= row.origin) & (tracks["clip"] > row.origin)
        actual = (tracks.loc[inside, "clip"].max() - row.origin).total_seconds()
        held.append(row.lower_seconds <= actual <= row.upper_seconds)
    return float(np.mean(held))


def eta_seconds() -> float:
    """CPU seconds of the seven steps' forecasts."""
    tracks, _ = seven_steps(1)
    now, names = START + pd.Timedelta("58D"), ["entered_at", *STEPS]
    times = tracks[names].where(tracks[names] <= now)

    def work() -> None:
        for came, went in itertools.pairwise(names):
            both = (seconds(times[name].dropna(), name) for name in (came, went))
            forecast(History(*both), now)

    work()
    begun = time.process_time()
    work()
    return time.process_time() - begun


def backtest_seconds() -> float:
    """CPU seconds of a backtest, as of 300 origins."""
    log = GENERATORS["drifting"](1)
    begun = time.process_time()
    found = backtest(log)
    return (time.process_time() - begun) * 300 / len(found)


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of each generator")
    parser.add_argument("--kinds", type=int, help="so many generators; default all")
    given = parser.parse_args()
    seeds = range(101, 101 + given.seeds)
    kinds = itertools.islice(GENERATORS.items(), given.kinds)
    logs = ((name, [make(seed) for seed in seeds]) for name, make in kinds)
    found = list(of_kinds([compare(name, each) for name, each in logs]))
    held = float(np.mean([end_to_end(seed) for seed in seeds]))
    what = "80% ranges end to end, seven steps: share that held, off 0.80 by"
    found.append(results.Result(what, f"{held:.2f}", "0.80", abs(held - 0.8), 0.1))
    for what, taken, most in (
        ("eta: seven steps' computing, seconds", eta_seconds(), 0.25),
        ("backtest: 300 moments' computing, seconds", backtest_seconds(), 1.0),
    ):
        found.append(results.Result(what, f"{taken:.2f} s", "", taken, most))
    results.report(found, given.json)


if __name__ == "__main__":
    main()
