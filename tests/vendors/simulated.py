"""A job table of River's shape with three weeks behind it, and what truly happened to each job.

Arrivals follow the day; so many workers take what has been due for longest; some jobs fail, wait
and are tried again, are given up, cancelled, or made long before they are due. A retry leaves no
trace of what was before it but the number of attempts: a job has come when it was due last.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg

from mechanisms import HOUR, daily, poisson
from vendors import HERE

DAYS, MAX_ATTEMPTS, BACKOFF = 21, 3, 900.0
# Arrivals an hour at night and by day, workers, seconds that a job takes.
KINDS = {"transcode": (10, 50, 4, 350.0), "embed": (3, 15, 1, 300.0)}
COPY = """
    COPY river_job (kind, state, attempt, max_attempts, created_at, scheduled_at, attempted_at,
        finalized_at) FROM STDIN
"""


@dataclass
class Job:
    """Times are seconds since the start, whole milliseconds; null for what has not happened yet."""

    kind: str
    made: float
    came: float  # when it was due last
    state: str = "available"
    attempts: int = 0
    started: float | None = None  # the last attempt
    ended: float | None = None


@dataclass
class World:
    start: datetime
    now: float
    jobs: list[Job]

    def at(self, seconds: float | None) -> datetime | None:
        return None if seconds is None else self.start + timedelta(seconds=seconds)

    def write(self, connection: psycopg.Connection) -> None:
        """The tables as they are now; needs an empty database."""
        tables = (HERE / "river.sql").read_text("utf-8").split("DELETE FROM truth")[0]
        connection.execute(tables.encode())
        with connection.cursor().copy(COPY) as copy:
            for job in self.jobs:
                times = map(self.at, (job.made, job.came, job.started, job.ended))
                copy.write_row((job.kind, job.state, job.attempts, MAX_ATTEMPTS, *times))
        connection.execute("ANALYZE")


def simulate(seed: int) -> World:
    """Three weeks that end now."""
    end = datetime.now(UTC)
    start = (end - timedelta(days=DAYS)).replace(minute=0, second=0, microsecond=0)
    world = World(start, (end - start).total_seconds(), [])
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        jobs = list(_made(kind, world.now, rng))
        _work(jobs, kind, world.now, rng)
        world.jobs += jobs
    return world


def _made(kind: str, now: float, rng: np.random.Generator) -> Iterator[Job]:
    night, day, _, _ = KINDS[kind]
    for at in poisson(rng, lambda t: daily(t, night, day), day, now).round(3):
        due = at + 6 * HOUR if rng.random() < 0.03 else at
        yield Job(kind, at, due, "available" if due <= now else "scheduled")


def _work(jobs: list[Job], kind: str, now: float, rng: np.random.Generator) -> None:
    """Let the workers live until *now*."""
    _, _, workers, mean = KINDS[kind]
    free = [0.0] * workers
    due = [(job.came, number) for number, job in enumerate(jobs) if job.came <= now]
    heapq.heapify(due)
    while due:
        came, number = heapq.heappop(due)
        job, started = jobs[number], max(came, free[0])
        if started > now:
            return
        if not job.attempts and rng.random() < 0.01:  # cancelled when its turn came
            job.state, job.ended = "cancelled", started
            continue
        ended = round(started + rng.exponential(mean), 3)
        heapq.heapreplace(free, ended)
        job.state, job.attempts, job.started = "running", job.attempts + 1, started
        if ended > now:
            continue
        if rng.random() >= 0.12:
            job.state, job.ended = "completed", ended
        elif job.attempts == MAX_ATTEMPTS:
            job.state, job.ended = "discarded", ended
        else:
            job.state, job.came = "retryable", ended + BACKOFF
            if job.came <= now:
                heapq.heappush(due, (job.came, number))
