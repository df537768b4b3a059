"""One story for every vendor's queue, lived by the vendor's own library and workers.

A script beside this file is run by an interpreter that has its vendor's package:

- ``SCRIPT build URL`` makes the vendor's tables in an empty database, lets workers live the story,
  and prints the truth: one record for each job, with the state that the vendor's own API gives it.
- ``SCRIPT work URL`` runs a worker for which every job succeeds, until nothing more can run, and
  prints the ids of what it finished.
- ``SCRIPT hang URL`` is a worker that takes jobs that never end; ``build`` kills it.
"""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import timedelta

_, COMMAND, URL = sys.argv
TEN_YEARS = timedelta(days=3650)
DONE, HUNG_BY_THE_DEAD, HUNG_BY_THE_LIVING = 20, 2, 1
# What becomes of the jobs of each kind; vendors that lack a word for some of it say so in `tell`.
STORY = {
    "resize": {"completed": DONE, "pending": 6},
    "doomed": {"exhausted": 4},  # fail for good
    "slow": {"backing_off": 3},  # failed once, to be tried again in ten years
    "flaky": {"retryable": 2},  # failed once, due again
    "later": {"backing_off": 5},  # never tried, due in ten years
    "mail": {"pending": 6, "skipped": 3},
    "hang": {"stuck": HUNG_BY_THE_DEAD, "running": HUNG_BY_THE_LIVING},
}
finished: list[str] = []


def error(kind: str, job: object) -> str:
    """The text of a failure, which differs from job to job in what names no kind of failure."""
    return f"{kind}: track {job} of 'Mo \"X\"' not found, HTTP 404 after 3.5 s"


def act(kind: str, job: object) -> bool:
    """What the handler of any kind does; whether it is never to end."""
    if COMMAND == "work":
        finished.append(str(job))
    elif kind in ("doomed", "slow", "flaky"):
        raise ValueError(error(kind, job))
    elif kind == "hang":
        print(job, flush=True)
        return True
    return False


def killed(jobs: int) -> None:
    """Run the worker that hangs until it has taken so many *jobs*, then kill it."""
    command = [sys.executable, sys.argv[0], "hang", URL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        taken = [worker.stdout.readline() for _ in range(jobs)]
        worker.kill()
    assert all(taken), "the worker ended before it was killed"


def tell(
    jobs: list[tuple[object, str, str, str | None]], *, renamed: dict[str, str], without: str = ""
) -> None:
    """Print the truth: (id, kind, state, error) of each job.

    It is held to the story first: states in *renamed* are another one for this vendor ("" where it
    keeps nothing of such a job), kinds in *without* are not told at all.
    """
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, states in STORY.items():
        for state, count in states.items():
            state = renamed.get(state, state)
            if state and kind not in without.split():
                expected[kind][state] += count
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for _, kind, state, _ in jobs:
        found[kind.rsplit(".", 1)[-1].lower()][state] += 1
    assert found == expected, f"the vendor tells another story: {dict(found)}"
    names = ("id", "kind", "state", "error")
    print(json.dumps([dict(zip(names, (str(j[0]), *j[1:]), strict=True)) for j in jobs]))
