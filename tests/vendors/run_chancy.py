"""chancy: see story.py. Its worker imports the handlers from this very file."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import story
from chancy import Chancy, Queue, Reference, Worker
from chancy.job import Job, QueuedJob
from chancy.plugins.retry import RetryPlugin

STATES = {"running": "running", "succeeded": "completed", "failed": "exhausted"}
HEARTBEAT = timedelta(seconds=90)  # of a worker: after that, Recovery takes its jobs
FAR = {"backoff": story.TEN_YEARS.total_seconds(), "backoff_limit": 1e9}


async def resize(*, job: QueuedJob) -> None:
    if story.act(job.func.rsplit(".", 1)[-1], job.id):
        await asyncio.Event().wait()


doomed = slow = flaky = later = mail = hang = resize


def app() -> Chancy:
    log = logging.getLogger("chancy")  # its own would print among the answers
    return Chancy(story.URL, plugins=[RetryPlugin()], no_default_plugins=True, log=log)


async def build(chancy: Chancy) -> None:
    await chancy.migrate()
    for name in ("default", "hangs"):
        executor = Chancy.Executor.Async
        await chancy.declare(Queue(name, tags={name}, executor=executor, polling_interval=1))
    refs: list[Reference] = []

    async def push(kind: str, count: int, **how) -> None:
        queue = "hangs" if kind == "hang" else "default"
        job = Job(func=f"run_chancy.{kind}", queue=queue, **how)
        refs.extend([r async for batch in chancy.push_many([job] * count) for r in batch])

    async def sql(statement: str) -> None:
        async with chancy.pool.connection() as connection:
            await connection.execute(statement)

    again = {"max_attempts": 5, "meta": {"retry_settings": FAR}}
    for kind, count in (("resize", story.DONE), ("doomed", 4)):
        await push(kind, count)
    for kind, count in (("slow", 3), ("flaky", 2)):
        await push(kind, count, **again)
    async with Worker(chancy, tags={"default"}, register_signal_handlers=False):
        while any(j.state.value in ("pending", "running") for j in await chancy.get_jobs(refs)):
            await asyncio.sleep(0.02)
    await sql("UPDATE chancy_jobs SET scheduled_at = now() WHERE func LIKE '%flaky'")
    await push("resize", 6)
    await push("later", 5, scheduled_at=datetime.now(UTC) + story.TEN_YEARS)
    await push("mail", 6)
    await push("hang", story.HUNG_BY_THE_DEAD)
    story.killed(story.HUNG_BY_THE_DEAD)
    await sql("UPDATE chancy_workers SET last_seen = now() - interval '1 hour'")
    await push("hang", story.HUNG_BY_THE_LIVING)
    story.killed(story.HUNG_BY_THE_LIVING)

    alive = datetime.now(UTC) - HEARTBEAT
    workers = {w["worker_id"]: w["last_seen"] >= alive for w in await chancy.get_all_workers()}
    async with chancy.pool.connection() as connection:
        rows = await connection.execute("SELECT id, taken_by FROM chancy_jobs")
        taken_by = dict(await rows.fetchall())
    jobs = []
    for job in await chancy.get_jobs(refs):
        state = STATES.get(job.state.value, "")
        if job.state.value in ("pending", "retrying"):
            waits = "pending" if job.state.value == "pending" else "retryable"
            state = waits if job.scheduled_at <= datetime.now(UTC) else "backing_off"
        elif state == "running" and not workers.get(taken_by[job.id]):
            state = "stuck"
        error = job.errors[-1]["traceback"] if job.errors else None
        jobs.append((job.id, job.func, state, error))
    story.tell(jobs, renamed={"skipped": ""})  # what is cancelled is deleted, or fails


async def main() -> None:
    async with app() as chancy:
        if story.COMMAND == "build":
            await build(chancy)
        else:
            worker = Worker(chancy, tags={"hangs"})
            async with chancy.pool.connection() as connection:
                await worker.announce_worker(connection)  # else a job may be taken before that
            async with worker:
                await worker.wait_for_shutdown()


if __name__ == "__main__":
    asyncio.run(main())
