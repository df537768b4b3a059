"""Oban for Python, on the tables of Elixir's Oban: see story.py."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import story
from oban import Oban, worker
from oban.job import JobState
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

LIFELINE = timedelta(hours=1)  # after which it rescues what is executing
QUEUES = {"default": 5}
STATES = {"available": "pending", "completed": "completed", "cancelled": "skipped"}
STATES |= {"discarded": "exhausted", "executing": "running", "suspended": "blocked"}


def worker_of(kind: str) -> type:
    async def process(self, job) -> None:
        if story.act(kind, job.id):
            await asyncio.Event().wait()

    body = {"process": process, "backoff": lambda self, job: int(story.TEN_YEARS.total_seconds())}
    attempts = 1 if kind == "doomed" else 5
    queue = "hangs" if kind == "hang" else "default"
    made = type(kind.title(), (), body | {"__module__": __name__, "__qualname__": kind.title()})
    return worker(queue=queue, max_attempts=attempts)(made)


WORKERS = {kind: worker_of(kind) for kind in story.STORY}


async def work(pool: AsyncConnectionPool) -> None:
    """Until nothing can run. The Lifeline, which rescues what hangs, is too late for this."""
    async with Oban(pool=pool, name="worker", queues=QUEUES, stager={"interval": 0.05}) as oban:
        while True:
            jobs = await oban._query.all_jobs(["available", "scheduled", "retryable", "executing"])
            now = datetime.now(UTC)
            if not any(job.queue in QUEUES and utc(job.scheduled_at) <= now for job in jobs):
                return
            await asyncio.sleep(0.02)


def utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def build(pool: AsyncConnectionPool) -> None:
    await install(pool)
    oban = Oban(pool=pool)

    async def enqueue(kind: str, count: int, **how) -> list[int]:
        jobs = await oban.enqueue_many(WORKERS[kind].new({}, **how) for _ in range(count))
        return [job.id for job in jobs]

    async def sql(statement: str, *values) -> None:
        async with pool.connection() as connection:
            await connection.execute(statement, values)

    for kind, count in (("resize", story.DONE), ("doomed", 4), ("slow", 3), ("flaky", 2)):
        await enqueue(kind, count)
    await work(pool)
    now = "timezone('UTC', now())"
    await sql(f"UPDATE oban_jobs SET scheduled_at = {now} WHERE worker LIKE '%%Flaky'")
    await enqueue("resize", 6)
    await enqueue("later", 5, scheduled_in=story.TEN_YEARS)
    await oban.cancel_many_jobs((await enqueue("mail", 9))[:3])
    dead = await enqueue("hang", story.HUNG_BY_THE_DEAD)
    story.killed(story.HUNG_BY_THE_DEAD)
    long_ago = f"UPDATE oban_jobs SET attempted_at = {now} - interval '1 day' WHERE id = ANY(%s)"
    await sql(long_ago, dead)
    await enqueue("hang", story.HUNG_BY_THE_LIVING)
    story.killed(story.HUNG_BY_THE_LIVING)

    jobs = []
    for job in await oban._query.all_jobs([state.value for state in JobState]):
        state = STATES.get(job.state, "")
        if job.state in ("scheduled", "retryable"):
            due = utc(job.scheduled_at) <= datetime.now(UTC)
            waits = "pending" if job.state == "scheduled" else "retryable"
            state = waits if due else "backing_off"
        elif job.state == "executing" and utc(job.attempted_at) < datetime.now(UTC) - LIFELINE:
            state = "stuck"
        jobs.append((job.id, job.worker, state, job.errors[-1]["error"] if job.errors else None))
    story.tell(jobs, renamed={})


async def main() -> None:
    async with AsyncConnectionPool(story.URL, open=False) as pool:
        if story.COMMAND == "build":
            await build(pool)
        elif story.COMMAND == "hang":
            async with Oban(pool=pool, queues={"hangs": 5}):
                await asyncio.Event().wait()
        else:
            await work(pool)
            print(json.dumps(story.finished))


asyncio.run(main())
