"""Databases of other people's queues, each with the truth about every job that is in it.

Eight vendors' own packages make their tables and run their own workers, by the scripts beside this;
of the four whose packages are not for Python or Node, an SQL file has the tables.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import Url, database
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NODE = HERE / "node" / "node_modules"
# What runner.py does, and what it must have come to: of each kind, so many in our states.
STEPS = [
    *("make", "add resize 20", "add doomed 4", "add slow 3", "add flaky 2", "work", "hasten flaky"),
    *("add resize 6", "add later 5", "add mail 6", "cancel mail 3", "lose 2 1", "tell"),
]
STORY = {
    **{"resize": {"completed": 20, "pending": 6}, "doomed": {"exhausted": 4}},
    **{"slow": {"backing_off": 3}, "flaky": {"retryable": 2}, "later": {"backing_off": 5}},
    **{"mail": {"pending": 6, "skipped": 3}, "hang": {"stuck": 2, "running": 1}},
}
# By what a vendor's script is run; where it is nothing, an SQL file has the tables.
VENDORS = {
    **dict.fromkeys(("procrastinate", "pgqueuer", "chancy", "django_tasks"), "queues"),
    **{"oban": "oban", **dict.fromkeys(("pgboss", "pgboss10", "graphile_worker"), "node")},
    **dict.fromkeys(("river", "good_job", "solid_queue", "que"), ""),
}
WORDS = {  # for states that a vendor calls differently, or keeps nothing of
    **{"procrastinate": {"retryable": "pending"}, "chancy": {"skipped": ""}},
    **{"pgqueuer": {"retryable": "pending", "skipped": ""}, "django_tasks": {"skipped": ""}},
    "graphile_worker": {"completed": "", "skipped": ""},
}
LACKS = {"chancy": {"cancel"}, "django_tasks": {"cancel", "slow", "flaky"}}
SIGNS = {  # where a living worker writes the time every few seconds
    "procrastinate": "procrastinate_workers.last_heartbeat",
    **{"pgqueuer": "pgqueuer.heartbeat", "chancy": "chancy_workers.last_seen"},
    "good_job": "good_job_processes.updated_at",
    "solid_queue": "solid_queue_processes.last_heartbeat_at",
}


@dataclass(frozen=True)
class Job:
    id: str
    kind: str
    state: str  # in our words
    error: str | None  # as the vendor keeps it, or null


@dataclass(frozen=True)
class Lived:
    """A database in which the vendor's queue has lived the story, and what is true of it."""

    vendor: str
    url: str
    jobs: list[Job]

    def queue(self) -> Queue:
        """Ours; who was alive at the end of the story is alive now."""
        table, _, sign = SIGNS.get(self.vendor, "").partition(".")
        if table:
            alive = f"UPDATE {table} SET {sign} = now() WHERE {sign} > now() - interval '30 min'"
            with psycopg.connect(self.url, options="-c timezone=UTC") as connection:
                connection.execute(alive)
        return Queue(Database(self.url), pipeline.load(_plain(self.vendor)))

    def ids(self, *states: str) -> set[str]:
        return {job.id for job in self.jobs if job.state in states}

    def work(self) -> set[str]:
        """Let the vendor's own worker finish what can run; the ids of what it finished."""
        return set(_run(self.vendor, self.url, "finish"))


@contextmanager
def lived(vendor: str, server: Url) -> Iterator[Lived]:
    """Where its package is not installed the test is skipped, or fails if CI=true."""
    with ExitStack() as ends:
        url = ends.enter_context(database(server))
        jobs = _told(vendor, url) if VENDORS[vendor] else _written(vendor, url)
        if vendor == "que":
            here, elsewhere = (
                ends.enter_context(closing(psycopg.connect(where, autocommit=True)))
                for where in (url, server("postgres"))
            )
            _lock(jobs, here, elsewhere)
        yield Lived(vendor, url, jobs)


def _plain(vendor: str) -> str:
    return vendor.removesuffix("10")


def _lock(jobs: list[Job], here: psycopg.Connection, elsewhere: psycopg.Connection) -> None:
    """Hold the locks that Que's workers hold on what they run, and some that only look like them:
    in another database, and of the other sort (two numbers)."""
    for job in jobs:
        if job.state == "running":
            here.execute("SELECT pg_advisory_lock(%s::bigint)", [job.id])
        elif job.state == "pending":
            here.execute("SELECT pg_advisory_lock(0, %s::int)", [job.id])
            elsewhere.execute("SELECT pg_advisory_lock(%s::bigint)", [job.id])


def _written(vendor: str, url: str) -> list[Job]:
    with psycopg.connect(url) as connection:
        for name in ("story", vendor):
            connection.execute((HERE / f"{name}.sql").read_bytes())
        rows = connection.execute("SELECT id, kind, state, error FROM truth").fetchall()
        connection.execute("DROP TABLE truth")
    return [Job(*row) for row in rows]


def _told(vendor: str, url: str) -> list[Job]:
    """Live the story, as far as the vendor knows of it, and hold what its API says to it."""
    lacks, words = LACKS.get(vendor, set()), WORDS.get(vendor, {})
    steps = [step for step in STEPS if not lacks & {*step.split()}]
    jobs = [Job(*job) for job in _run(vendor, url, *steps)]
    expected: Counter[tuple[str, str]] = Counter()
    for kind in STORY.keys() - lacks:
        for state, count in STORY[kind].items():
            if word := words.get(state, state):
                expected[kind, word] += count
    found = Counter((job.kind.rsplit(".", 1)[-1].lower(), job.state) for job in jobs)
    assert found == expected, "the vendor tells another story"
    return jobs


def _run(vendor: str, url: str, *steps: str) -> list[Any]:
    by = VENDORS[vendor]
    python = ROOT / f".venv-{by}" / "bin" / "python"
    interpreter = NODE / ".bin" / "node" if by == "node" else python
    if not interpreter.exists():
        # No Python that is new enough for a package is nothing that `make queues` can mend.
        made = python.parents[1].joinpath("stamp").exists()
        fail = pytest.fail if os.environ.get("CI") == "true" and not made else pytest.skip
        fail(f"{vendor} is not installed: run `make queues`")
    script = f"node/run_{_plain(vendor)}.mjs" if by == "node" else f"run_{vendor}.py"
    command = [interpreter, HERE / script, url, "; ".join(steps)]
    command += ["pg-boss-10"] if vendor == "pgboss10" else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{script}: {done.stderr[-2000:]}"
    return list(json.loads(done.stdout.splitlines()[-1]))
