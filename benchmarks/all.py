"""Every benchmark, one after the other, in one table: printed, as JSON, in docs/evidence.md.

    python benchmarks/all.py [--tracks 1000000] [--large]      # or: make bench TRACKS=1000000

Ratios are medians of paired runs on the same data. The scripts share one server, so that each size
is seeded once. At the default size (about 6.5 million rows) that takes about three quarters of an
hour, 12 GB of disk, and quiet cores.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import results

HERE = Path(__file__).parent
PAGE, TABLE = HERE.parent / "docs" / "evidence.md", HERE / "results.json"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"


def commands(tracks: int, large: bool) -> list[list[str]]:
    rounds = "5" if tracks >= 100_000 else "1"
    sizes = sorted({max(tracks // 10, 1000), tracks, *([10 * tracks] if large else [])})
    seconds = "20" if tracks >= 100_000 else "3"
    return [
        ["startup.py"],
        ["reads.py", f"--tracks={tracks}", f"--rounds={rounds}"],
        ["throughput.py", f"--tracks={tracks}", f"--rounds={rounds}"],
        ["failures.py", f"--rows={tracks}", f"--rounds={rounds}"],
        ["queues.py", f"--rows={tracks}"],
        ["growth.py", *map(str, sizes)],
        [
            "actions.py",
            f"--rows={tracks}",
            f"--rounds={min(3, int(rounds))}",
            f"--seconds={seconds}",
        ],
        ["trigger.py", f"--tracks={max(tracks // 10, 1000)}", f"--rounds={rounds}"],
        ["report.py", f"--rounds={rounds}"],
        [
            "forecast_methods.py",
            *(["--seeds=3"] if tracks >= 100_000 else ["--seeds=1", "--kinds=3"]),
        ],
    ]


def run(command: list[str], server: str) -> list[results.Result]:
    print(f"\n== {' '.join(command)}", flush=True)
    with tempfile.NamedTemporaryFile() as file:
        given = [*command[1:], "--folder", server, "--json", file.name]
        subprocess.run([sys.executable, HERE / command[0], *given], check=True)
        return [results.Result(**found) for found in json.load(file)]


def markdown(found: list[results.Result], tracks: int) -> str:
    rows = [results.HEADER, ("---",) * len(results.HEADER), *(result.cells() for result in found)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{BEGIN}{tracks:,} tracks, {os.cpu_count()} cores:\n\n{table}{END}"


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--large", action="store_true", help="growth up to ten times as many, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="queue-insights-benchmark-", dir="/var/tmp") as server:
        todo = commands(given.tracks, given.large)
        found = [result for command in todo for result in run(command, server)]
    results.report(found, given.json or TABLE)
    text = PAGE.read_text("utf-8")
    if given.json is None and BEGIN in text:
        before, rest = text.split(BEGIN)
        PAGE.write_text(before + markdown(found, given.tracks) + rest.split(END)[1], "utf-8")


if __name__ == "__main__":
    main()
