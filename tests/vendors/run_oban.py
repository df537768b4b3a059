"""Oban for Python, on the tables of Elixir's Oban: see runner.py."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import runner
from oban import Oban, worker
from oban.job import JobState
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

LIFELINE = timedelta(hours=1)  # after which it rescues what is executing
QUEUES = {"default": 5}


def worker_of(kind: str) -> type:
    async def process(self, job) -> None:
        await runner.handle(kind, job.id)

    body = {"process": process, "backoff": lambda self, job: int(runner.TEN_YEARS.total_seconds())}
    attempts = 1 if kind == "doomed" else 5
    queue = "hangs" if kind == "hang" else "default"
    made = type(kind.title(), (), body | {"__module__": __name__, "__qualname__": kind.title()})
    return worker(queue=queue, max_attempts=attempts)(made)


def utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Runner(runner.Runner):
    STATES = (
        "available=pending scheduled=pending executing=running discarded=exhausted"
        " cancelled=skipped"
    )
    HASTEN = "UPDATE oban_jobs SET scheduled_at = now() WHERE worker = '__main__.' || initcap(%s)"
    SILENCE = "UPDATE oban_jobs SET attempted_at = now() - interval '1 day' WHERE id = ANY (%s)"

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self.pool, self.oban = pool, Oban(pool=pool)
        self.make, self.drop = partial(install, pool), self.oban.cancel_many_jobs
        self.workers = {kind: worker_of(kind) for kind in runner.KINDS}

    async def enqueue(self, kind: str) -> int:
        how = {"scheduled_in": runner.TEN_YEARS} if kind == "later" else {}
        return (await self.oban.enqueue(self.workers[kind].new({}, **how))).id

    async def work(self) -> None:
        how = {"queues": QUEUES, "stager": {"interval": 0.05}}
        async with Oban(pool=self.pool, name="worker", **how) as oban:
            open_ = ["available", "scheduled", "retryable", "executing"]
            while any(
                job.queue in QUEUES and utc(job.scheduled_at) <= datetime.now(UTC)
                for job in await oban._query.all_jobs(open_)
            ):
                await asyncio.sleep(0.02)

    async def hang(self) -> None:
        async with Oban(pool=self.pool, queues={"hangs": 5}):
            await asyncio.Event().wait()

    async def jobs(self) -> list[tuple]:
        jobs, rescued = [], datetime.now(UTC) - LIFELINE
        for job in await self.oban._query.all_jobs([state.value for state in JobState]):
            alive = job.attempted_at and utc(job.attempted_at) >= rescued
            error = job.errors[-1]["error"] if job.errors else None
            jobs.append((job.id, job.worker, job.state, utc(job.scheduled_at), alive, error))
        return jobs


runner.play(lambda: AsyncConnectionPool(runner.URL, open=False), Runner)
