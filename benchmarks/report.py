"""A whole report beside papermill on an empty notebook, and the weight of its page.

    .venv/bin/python benchmarks/report.py --rounds 5

Targets: at most 2.5 times papermill on a notebook with one empty cell (both as processes, in turn,
in one run), and at most 300 kB of page beyond plotly.js. The database is the one the environment
names, or the demo's.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from plotly.offline import get_plotlyjs

import results
from queue_insights import database, demo

RATIO, WEIGHT = 2.5, 300_000


def timed(*arguments: str | Path) -> float:
    """Seconds that ``python -m ARGUMENTS`` takes; it must succeed."""
    started = time.perf_counter()
    command = [sys.executable, "-m", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    rounds = asked.rounds
    if database.environment() is None:
        os.environ[database.READ_URL] = demo.default_url()  # started once, and not in a round
    with tempfile.TemporaryDirectory() as folder:
        output, empty = Path(folder, "reports"), Path(folder, "empty.ipynb")
        nbformat.write(new_notebook(cells=[new_code_cell("")]), empty)
        papermill, report = [], []
        for _ in range(rounds + 1):  # the first fills caches
            silent = ("--no-progress-bar", "-k", "python3")
            papermill.append(timed("papermill", empty, Path(folder, "out.ipynb"), *silent))
            # The incident breaches the default thresholds, which is an exit code of its own.
            given = ("backlog_report", "-p", "thresholds", "[]", "--output", output)
            report.append(timed("queue_insights", "report", *given))
        pages = [page.stat().st_size for page in output.glob("*/report.html")]
    weight = max(pages) - len(get_plotlyjs().encode())
    ratio = median(r / p for r, p in zip(report[1:], papermill[1:], strict=True))
    found = [
        results.Result(
            "report backlog_report, beside papermill on an empty notebook",
            f"{median(report[1:]):.2f} s",
            f"{median(papermill[1:]):.2f} s",
            ratio,
            RATIO,
        ),
        results.Result(
            "a report page beyond plotly.js, in 300 kB",
            f"{weight / 1000:.0f} kB",
            f"{WEIGHT / 1000:.0f} kB",
            weight / WEIGHT,
            1.0,
        ),
    ]
    results.report(found, asked.json)


if __name__ == "__main__":
    main()
