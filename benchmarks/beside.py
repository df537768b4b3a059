"""What do the reads cost beside an earlier release, on the same data?

    python benchmarks/beside.py FOLDER_OF_ITS_CHECKOUT URL [--rounds 5]

Each release runs in a process of its own. They take turns; the ratio is the median of the pairs.
URL names a database with the demo's incident in it, of any size.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
READS = {
    "backlog": "queue.backlog()",
    "audit": "queue.audit()",
    "missing": "queue.missing()",
    "upcoming": "queue.upcoming()",
    "tasks": "queue.tasks()",
    "orphans": "queue.orphans()",
    "throughput, 7 days": "queue.throughput()",
    "durations, 7 days": "queue.durations()",
    "flow, 60 days": "queue.flow()",
    "what eta needs": "events(queue)",
}
WORKER = """
import os, resource, sys, time
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue
queue = Queue(Database(os.environ["BENCHMARK_URL"]), pipeline.load())
def events(queue):
    return queue._events(None) if hasattr(queue, "_events") else queue._read("eta", task=None)
for line in sys.stdin:
    started = time.perf_counter()
    eval(line)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(time.perf_counter() - started, memory, flush=True)
"""


def worker(checkout: Path, url: str) -> "subprocess.Popen[str]":
    """A process of the release in *checkout* that times what it is asked."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "BENCHMARK_URL": url}
    environment |= {"QUEUE_INSIGHTS_STATEMENT_TIMEOUT": "30min"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", WORKER], env=environment, **pipes)


def ask(process: "subprocess.Popen[str]", read: str) -> tuple[float, int]:
    """Seconds that a read takes, and the most memory that the process has had (in KB)."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{read}\n")
    process.stdin.flush()
    seconds, memory = process.stdout.readline().split()
    return float(seconds), int(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("url")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for name, read in READS.items():
        before, now = (worker(where, given.url) for where in (given.checkout, ROOT))
        for process in (before, now):
            ask(process, read)  # what is read for the first time says little
        pairs = [(ask(before, read), ask(now, read)) for _ in range(given.rounds)]
        ratio = statistics.median(ours[0] / theirs[0] for theirs, ours in pairs)
        (old, old_memory), (new, new_memory) = (
            tuple(statistics.median(one[i] for one in side) for i in range(2))
            for side in zip(*pairs, strict=True)
        )
        memory = new_memory / old_memory
        print(f"{name:20} {old:8.3f} s {new:8.3f} s   ratio {ratio:.2f}   memory {memory:.2f}")
        for process in (before, now):
            process.kill()


if __name__ == "__main__":
    main()
