"""Do 80% ranges hold on real logs? Every NAME.csv or NAME.csv.gz of a folder, and all pooled.

    python benchmarks/real_logs.py FOLDER [--cut]

A log has the columns ``arrived_at`` and ``completed_at`` (UTC; empty: not completed when it ends).
Per log: the moments judged (every 6 hours, at least 20 waiting, a week of history), the share of
them without a range, how many ranges held, and were missed below and above, and their interval
score as a share of a 24-hour block bootstrap's where both give a range. With --cut, completions
after a log's last arrival are unknown: else its last moments all share one outcome.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from queue_insights.forecast import backtest
from rivals import by_rival, score

HEADER = ("log", "moments", "no range", "held", "below", "above", "score")


def read(file: Path, cut: bool) -> pd.DataFrame:
    log = pd.read_csv(file)
    for column in ("arrived_at", "completed_at"):
        log[column] = pd.to_datetime(log[column], utc=True, format="ISO8601")
    if cut:
        known = log["completed_at"] <= log["arrived_at"].max()
        log["completed_at"] = log["completed_at"].where(known)
    return log


def beside(ours: pd.DataFrame, log: pd.DataFrame) -> float:
    """Our interval score as a share of the block bootstrap's."""
    theirs = by_rival("block_bootstrap", log, ours)
    both = ours["p50_seconds"].notna() & theirs["p50_seconds"].notna()
    return score(ours[both])["winkler"] / score(theirs[both])["winkler"]


def line(name: str, found: pd.DataFrame, ratio: float) -> str:
    given = found.dropna(subset=["lower_seconds"])
    below = (given["actual_seconds"] < given["lower_seconds"]).mean()
    above = (given["actual_seconds"] > given["upper_seconds"]).mean()
    shares = (1 - len(given) / max(len(found), 1), 1 - below - above, below, above)
    cells = [f"{len(found):,}", *(f"{share:.1%}" for share in shares), f"{ratio:.3f}"]
    return f"{name:<20}" + "".join(f"{cell:>10}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cut", action="store_true", help="each log at its last arrival")
    given = parser.parse_args()
    files = sorted([*given.folder.glob("*.csv"), *given.folder.glob("*.csv.gz")])
    if not files:
        parser.error(f"{given.folder} holds no NAME.csv or NAME.csv.gz")
    print(f"{HEADER[0]:<20}" + "".join(f"{name:>10}" for name in HEADER[1:]))
    logs, ratios = [], []
    for file in files:
        log = read(file, given.cut)
        logs.append(backtest(log))
        ratios.append(beside(logs[-1], log))
        print(line(file.name.split(".")[0], logs[-1], ratios[-1]), flush=True)
    print(line("all", pd.concat(logs), float(np.exp(np.nanmean(np.log(ratios))))))
    print("score: a share of the block bootstrap's interval score; of all, the geometric mean")


if __name__ == "__main__":
    main()
