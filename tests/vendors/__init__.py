"""Databases of other people's queues, each with the truth about every job that is in it.

Eight vendors' own packages make their tables and run their own workers (the story is in story.py);
of the four whose packages are not for Python or Node, an SQL file beside this has the tables.
"""

import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from conftest import Url, database

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = {name: ROOT / f".venv-{name}" / "bin" / "python" for name in ("queues", "oban")}
NODE = HERE / "node" / "node_modules" / ".bin" / "node"
UTC_NOW = "timezone('UTC', now())"
ALIVE = "> now() - interval '30 min'"


# Who was killed may leave a session behind for a while, and only what nobody uses is cloned.
ALONE = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s"
Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Vendor:
    """``pipeline`` is the shipped file's name; ``command`` runs the vendor's script, and is empty
    where an SQL file has the tables; ``sign`` is what a living worker does every few seconds."""

    pipeline: str
    command: tuple[Path | str, ...] = ()
    sign: str = ""


def _script(name: str, *arguments: str, python: str = "queues") -> tuple[Path | str, ...]:
    if name.endswith(".mjs"):
        return (NODE, HERE / "node" / name, *arguments)
    return (PYTHON[python], HERE / name)


VENDORS = {
    "procrastinate": Vendor(
        "procrastinate",
        _script("run_procrastinate.py"),
        "UPDATE procrastinate_workers SET last_heartbeat = now() WHERE last_heartbeat " + ALIVE,
    ),
    "pgqueuer": Vendor(
        "pgqueuer",
        _script("run_pgqueuer.py"),
        f"UPDATE pgqueuer SET heartbeat = now() WHERE status = 'picked' AND heartbeat {ALIVE}",
    ),
    "chancy": Vendor(
        "chancy",
        _script("run_chancy.py"),
        f"UPDATE chancy_workers SET last_seen = now() WHERE last_seen {ALIVE}",
    ),
    "django_tasks": Vendor("django_tasks", _script("run_django_tasks.py")),
    "oban": Vendor("oban", _script("run_oban.py", python="oban")),
    "pgboss": Vendor("pgboss", _script("run_pgboss.mjs")),
    "pgboss10": Vendor("pgboss", _script("run_pgboss.mjs", "pg-boss-10")),
    "graphile_worker": Vendor("graphile_worker", _script("run_graphile_worker.mjs")),
    "river": Vendor("river"),
    "good_job": Vendor(
        "good_job",
        sign=f"UPDATE good_job_processes SET updated_at = {UTC_NOW} "
        f"WHERE updated_at > {UTC_NOW} - interval '30 min'",
    ),
    "solid_queue": Vendor(
        "solid_queue",
        sign=f"UPDATE solid_queue_processes SET last_heartbeat_at = {UTC_NOW} "
        f"WHERE last_heartbeat_at > {UTC_NOW} - interval '30 min'",
    ),
    "que": Vendor("que"),
}


@dataclass(frozen=True)
class Job:
    id: str
    kind: str
    state: str  # in our words
    error: str | None  # as the vendor keeps it, or null


@dataclass(frozen=True)
class Lived:
    """A fresh database in which the vendor's queue has lived the story, and what is true of it."""

    vendor: str
    url: str
    jobs: list[Job]

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each kind: how many are in each state; completed ones are over, cancelled ones not."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for job in self.jobs:
            if job.state != "completed":
                found[job.kind][job.state] += 1
        return {kind: dict(states) for kind, states in found.items()}

    def ids(self, *states: str) -> set[str]:
        return {job.id for job in self.jobs if job.state in states}

    def work(self) -> set[str]:
        """Let the vendor's own worker finish what can run; the ids of what it finished."""
        return set(_run(self.vendor, "work", self.url))


class Stories:
    """Builds each vendor's database once, and clones it."""

    def __init__(self, server: Url) -> None:
        self.server = server
        self.templates: dict[str, tuple[str, list[Job]]] = {}
        self.ends = ExitStack()

    def close(self) -> None:
        self.ends.close()

    @contextmanager
    def lived(self, vendor: str) -> Iterator[Lived]:
        """A database of *vendor*. Where its package is not installed the test is skipped, or fails
        if CI=true."""
        if vendor not in self.templates:
            url = self.ends.enter_context(database(self.server))
            self.templates[vendor] = (urlsplit(url).path[1:], _built(vendor, url))
            with psycopg.connect(self.server("postgres"), autocommit=True) as admin:
                admin.execute(ALONE, [self.templates[vendor][0]])
        template, jobs = self.templates[vendor]
        with ExitStack() as stack:
            url = stack.enter_context(database(self.server, template))
            connection = stack.enter_context(closing(psycopg.connect(url, autocommit=True)))
            if sign := VENDORS[vendor].sign:
                connection.execute(sign)
            if vendor == "que":
                elsewhere = psycopg.connect(self.server("postgres"), autocommit=True)
                _lock(jobs, connection, stack.enter_context(closing(elsewhere)))
            yield Lived(vendor, url, jobs)


def _lock(
    jobs: list[Job], here: psycopg.Connection[Any], elsewhere: psycopg.Connection[Any]
) -> None:
    """Hold the locks that Que's workers hold on what they run, and some that only look like them:
    in another database, and of the other sort (two numbers)."""
    for job in jobs:
        if job.state == "running":
            here.execute("SELECT pg_advisory_lock(%s::bigint)", [job.id])
        elif job.state == "pending":
            here.execute("SELECT pg_advisory_lock(0, %s::int)", [job.id])
            elsewhere.execute("SELECT pg_advisory_lock(%s::bigint)", [job.id])


def missing(vendor: str) -> str:
    """Why the vendor's package cannot be run here, or nothing."""
    command = VENDORS[vendor].command
    if command and not Path(command[0]).exists():
        return f"{vendor} is not installed: run `make queues`"
    return ""


def _built(vendor: str, url: str) -> list[Job]:
    if why := missing(vendor):
        # No Python that is new enough for a package is nothing that `make queues` can mend.
        made = (ROOT / f".venv-{vendor}" / "stamp").exists()
        (pytest.fail if os.environ.get("CI") == "true" and not made else pytest.skip)(why)
    if VENDORS[vendor].command:
        return [Job(**job) for job in _run(vendor, "build", url)]
    with psycopg.connect(url) as connection:
        connection.execute((HERE / f"{vendor}.sql").read_bytes())
        rows = connection.execute("SELECT id, kind, state, error FROM truth").fetchall()
        connection.execute("DROP TABLE truth")
    return [Job(*row) for row in rows]


def _run(vendor: str, what: str, url: str) -> list[Any]:
    interpreter, script, *arguments = map(str, VENDORS[vendor].command)
    command = [interpreter, script, what, url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{script} {what}: {done.stderr[-2000:]}"
    return list(json.loads(done.stdout.splitlines()[-1]))
