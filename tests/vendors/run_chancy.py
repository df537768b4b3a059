"""chancy: see runner.py. Its worker imports the handlers from this very file."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import runner
from chancy import Chancy, Queue, Worker
from chancy.job import Job, QueuedJob
from chancy.plugins.retry import RetryPlugin

HEARTBEAT = timedelta(seconds=90)  # of a worker: after that, Recovery takes its jobs
FAR = {"backoff": runner.TEN_YEARS.total_seconds(), "backoff_limit": 1e9}


async def resize(*, job: QueuedJob) -> None:
    await runner.handle(job.func.rsplit(".", 1)[-1], job.id)


doomed = slow = flaky = later = mail = hang = resize


class Runner(runner.Runner):
    STATES = "retrying=retryable succeeded=completed failed=exhausted"
    HASTEN = "UPDATE chancy_jobs SET scheduled_at = now() WHERE func = 'run_chancy.' || %s"
    SILENCE = """
        UPDATE chancy_workers SET last_seen = now() - interval '1 hour'
        WHERE worker_id IN (SELECT taken_by FROM chancy_jobs WHERE id = ANY (%s::uuid[]))
    """

    def __init__(self, chancy: Chancy) -> None:
        self.chancy, self.references = chancy, []

    async def make(self) -> None:
        await self.chancy.migrate()
        for name in ("default", "hangs"):
            executor = Chancy.Executor.Async
            queue = Queue(name, tags={name}, executor=executor, polling_interval=1)
            await self.chancy.declare(queue)

    async def enqueue(self, kind: str) -> str:
        job = Job(func=f"run_chancy.{kind}", queue="hangs" if kind == "hang" else "default")
        if kind in ("slow", "flaky"):
            job = job.with_max_attempts(5).with_meta({"retry_settings": FAR})
        elif kind == "later":
            job = job.with_scheduled_at(datetime.now(UTC) + runner.TEN_YEARS)
        self.references.append(await self.chancy.push(job))
        return self.references[-1].identifier

    async def work(self) -> None:
        async with Worker(self.chancy, tags={"default"}, register_signal_handlers=False):
            while any(
                job.state.value in ("pending", "running")
                for job in await self.chancy.get_jobs(self.references)
            ):
                await asyncio.sleep(0.02)

    async def hang(self) -> None:
        worker = Worker(self.chancy, tags={"hangs"})
        async with self.chancy.pool.connection() as connection:
            await worker.announce_worker(connection)  # else a job may be taken before that
        async with worker:
            await worker.wait_for_shutdown()

    async def jobs(self) -> list[tuple]:
        since = datetime.now(UTC) - HEARTBEAT
        workers = await self.chancy.get_all_workers()
        alive = {worker["worker_id"] for worker in workers if worker["last_seen"] >= since}
        taken = runner.sql("SELECT id FROM chancy_jobs WHERE taken_by = ANY (%s)", [*alive])
        jobs = []
        for job in await self.chancy.get_jobs(self.references):
            error = job.errors[-1]["traceback"] if job.errors else None
            status = (job.state.value, job.scheduled_at, (job.id,) in taken)
            jobs.append((job.id, job.func, *status, error))
        return jobs


def opened() -> Chancy:
    log = logging.getLogger("chancy")  # its own would print among the answers
    return Chancy(runner.URL, log=log, plugins=[RetryPlugin()], no_default_plugins=True)


if __name__ == "__main__":
    runner.play(opened, Runner)
