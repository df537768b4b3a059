"""How long does `queue-insights --help` take?

python benchmarks/startup.py [--rounds 5]
"""

import subprocess
import sys
import time

import results

MOST = 0.4  # seconds


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    took = []
    for _ in range(given.rounds):
        began = time.perf_counter()
        command = [sys.executable, "-m", "queue_insights", "--help"]
        subprocess.run(command, check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    best = min(took)
    help = results.Result(
        "queue-insights --help, seconds, the best", f"{best:.2f} s", "", best, MOST
    )
    results.report([help], given.json)


if __name__ == "__main__":
    main()
