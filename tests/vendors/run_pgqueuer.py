"""pgqueuer: see story.py. A finished job is deleted; its log keeps what happened to it."""

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import asyncpg
import story
from pgqueuer.core.applications import PgQueuer
from pgqueuer.core.insights import InsightsService
from pgqueuer.domain.errors import RetryRequested

BEAT = 30 if story.COMMAND == "hang" else 2  # it ends within an eighth of that
ENDS = {"successful": "completed", "exception": "exhausted"}


def handle(worker: PgQueuer, kind: str) -> None:
    async def run(job) -> None:
        try:
            if story.act(kind, job.id):
                await asyncio.Event().wait()
        except ValueError as error:
            if kind == "doomed":
                raise
            raise RetryRequested(delay=story.TEN_YEARS, reason=str(error)) from error

    worker.entrypoint(kind, on_failure="hold")(run)


async def work(worker: PgQueuer, kinds: Iterable[str]) -> None:
    """Until nothing can run: its own drain mode would wait for what is due in ten years."""
    for kind in kinds:
        handle(worker, kind)
    running = asyncio.create_task(worker.qm.run(heartbeat_timeout=timedelta(seconds=BEAT)))
    mine = f"status = 'picked' AND queue_manager_id = '{worker.qm.queue_manager_id}'"
    left = f"SELECT FROM pgqueuer WHERE (status = 'queued' AND execute_after <= now()) OR ({mine})"
    while await worker.qm.queries.driver.fetch(left):
        await asyncio.wait([running], timeout=0.02)
    worker.shutdown.set()
    await running


async def build(worker: PgQueuer, connection: asyncpg.Connection) -> None:
    queries = worker.qm.queries
    await queries.install()

    async def enqueue(kind: str, count: int, after: timedelta | None = None) -> list[int]:
        return [(await queries.enqueue(kind, None, execute_after=after))[0] for _ in range(count)]

    for kind, count in (("resize", story.DONE), ("doomed", 4), ("slow", 3), ("flaky", 2)):
        await enqueue(kind, count)
    await work(worker, story.STORY)
    await connection.execute("UPDATE pgqueuer SET execute_after = now() WHERE entrypoint = 'flaky'")
    await enqueue("resize", 6)
    await enqueue("later", 5, story.TEN_YEARS)
    await queries.mark_job_as_cancelled((await enqueue("mail", 9))[:3])
    await enqueue("hang", story.HUNG_BY_THE_LIVING)  # first: who is silent for long is taken again
    story.killed(story.HUNG_BY_THE_LIVING)
    dead = await enqueue("hang", story.HUNG_BY_THE_DEAD)
    story.killed(story.HUNG_BY_THE_DEAD)
    silent = "UPDATE pgqueuer SET heartbeat = now() - interval '1 hour' WHERE id = ANY($1)"
    await connection.execute(silent, dead)

    insights = InsightsService(queries)
    stale = {job.id for job in await insights.stale_jobs(timedelta(seconds=30))}
    log = await queries.queue_log()
    errors = {line.job_id: line.traceback.exception_message for line in log if line.traceback}
    jobs = []
    for job in await insights.browse_queue(limit=1000):
        state = {"picked": "running", "failed": "exhausted"}.get(job.status, job.status)
        if job.status == "queued":
            state = "pending" if job.execute_after <= datetime.now(UTC) else "backing_off"
        elif job.id in stale:
            state = "stuck"
        error = errors.get(job.id) if job.status == "failed" else None  # else it is merely queued
        jobs.append((job.id, job.entrypoint, state, error))
    held = {job[0] for job in jobs}
    for line in log:
        if line.status in ENDS and line.job_id not in held:
            jobs.append((line.job_id, line.entrypoint, ENDS[line.status], errors.get(line.job_id)))
    # Its queued does not say which, and what is canceled is deleted.
    story.tell(jobs, renamed={"retryable": "pending", "skipped": ""})


async def main() -> None:
    connection = await asyncpg.connect(story.URL)
    try:
        worker = PgQueuer.from_asyncpg_connection(connection)
        if story.COMMAND == "build":
            await build(worker, connection)
        elif story.COMMAND == "hang":
            await work(worker, ["hang"])
        else:
            await work(worker, story.STORY)
            print(json.dumps(story.finished))
    finally:
        await connection.close()


asyncio.run(main())
