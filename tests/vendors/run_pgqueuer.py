"""pgqueuer: see runner.py. A finished job is deleted; its log keeps what happened to it."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import asyncpg
import runner
from pgqueuer.core.applications import PgQueuer
from pgqueuer.core.insights import InsightsService
from pgqueuer.domain.errors import RetryRequested


class Runner(runner.Runner):
    STATES = (
        "queued=pending picked=running failed=exhausted successful=completed exception=exhausted"
    )
    HASTEN = "UPDATE pgqueuer SET execute_after = now() WHERE entrypoint = %s"
    SILENCE = "UPDATE pgqueuer SET heartbeat = now() - interval '1 hour' WHERE id = ANY (%s)"

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.worker = PgQueuer.from_asyncpg_pool(pool)
        self.queries = self.worker.qm.queries
        self.make, self.drop = self.queries.install, self.queries.mark_job_as_cancelled

    async def enqueue(self, kind: str) -> int:
        after = runner.TEN_YEARS if kind == "later" else None
        return (await self.queries.enqueue(kind, None, execute_after=after))[0]

    def handle(self, kind: str) -> None:
        async def run(job) -> None:
            try:
                await runner.handle(kind, job.id)
            except ValueError as error:
                if kind == "doomed":
                    raise
                raise RetryRequested(delay=runner.TEN_YEARS, reason=str(error)) from error

        self.worker.entrypoint(kind, on_failure="hold")(run)

    async def work(self, kinds: Iterable[str] = runner.KINDS, beat: int = 2) -> None:
        """Until nothing can run: its own drain mode would wait for what is due in ten years. It
        ends within an eighth of *beat* seconds."""
        for kind in kinds:
            self.handle(kind)
        manager = self.worker.qm
        running = asyncio.create_task(manager.run(heartbeat_timeout=timedelta(seconds=beat)))
        mine = f"status = 'picked' AND queue_manager_id = '{manager.queue_manager_id}'"
        due = "status = 'queued' AND execute_after <= now()"
        while await self.queries.driver.fetch(f"SELECT FROM pgqueuer WHERE {due} OR {mine}"):
            await asyncio.wait([running], timeout=0.02)
        self.worker.shutdown.set()
        await running

    async def hang(self) -> None:
        await self.work(["hang"], beat=30)

    async def jobs(self) -> list[tuple]:
        insights = InsightsService(self.queries)
        stale = {job.id for job in await insights.stale_jobs(timedelta(seconds=30))}
        log = await self.queries.queue_log()
        errors = {line.job_id: line.traceback.exception_message for line in log if line.traceback}
        jobs = {}
        for job in await insights.browse_queue(limit=1000):
            error = errors.get(job.id) if job.status == "failed" else None  # else it waits
            alive = job.id not in stale
            jobs[job.id] = (job.id, job.entrypoint, job.status, job.execute_after, alive, error)
        for line in log:
            if line.status in ("successful", "exception"):
                over = (line.status, None, False, errors.get(line.job_id))
                jobs.setdefault(line.job_id, (line.job_id, line.entrypoint, *over))
        return list(jobs.values())


runner.play(lambda: asyncpg.create_pool(runner.URL), Runner)
