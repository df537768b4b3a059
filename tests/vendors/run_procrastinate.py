"""procrastinate: see story.py."""

import asyncio
import json
from datetime import UTC, datetime

import procrastinate
import story
from procrastinate.jobs import Status

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=story.URL))
STATES = {"doing": "running", "succeeded": "completed", "failed": "exhausted"}


def task(kind: str) -> procrastinate.tasks.Task:
    again = kind in ("slow", "flaky")
    wait = procrastinate.RetryStrategy(wait=int(story.TEN_YEARS.total_seconds()))

    async def run(context: procrastinate.JobContext) -> None:
        if story.act(kind, context.job.id):
            await asyncio.Event().wait()

    queue = "hangs" if kind == "hang" else "default"
    return app.task(name=kind, queue=queue, pass_context=True, retry=wait if again else False)(run)


TASKS = {kind: task(kind) for kind in story.STORY}


async def sql(statement: str) -> None:
    await app.connector.execute_query_async(statement)


async def defer(kind: str, count: int, **how) -> list[int]:
    return [await TASKS[kind].configure(**how).defer_async() for _ in range(count)]


async def build() -> None:
    await app.schema_manager.apply_schema_async()
    later = {"schedule_in": {"days": story.TEN_YEARS.days}}
    for kind, count in (("resize", story.DONE), ("doomed", 4), ("slow", 3), ("flaky", 2)):
        await defer(kind, count)
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    await sql("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE task_name = 'flaky'")
    await defer("resize", 6)
    await defer("later", 5, **later)
    for job in (await defer("mail", 9))[:3]:
        await app.job_manager.cancel_job_by_id_async(job)
    await defer("hang", story.HUNG_BY_THE_DEAD)
    story.killed(story.HUNG_BY_THE_DEAD)
    await sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    await defer("hang", story.HUNG_BY_THE_LIVING)
    story.killed(story.HUNG_BY_THE_LIVING)
    manager = app.job_manager
    stalled = {job.id for job in await manager.get_stalled_jobs(seconds_since_heartbeat=30)}
    jobs = []
    for job in await manager.list_jobs_async():
        state = STATES.get(job.status, job.status)
        if job.status == "todo":
            due = job.scheduled_at is None or job.scheduled_at <= datetime.now(UTC)
            state = "pending" if due else "backing_off"
        elif job.status in ("cancelled", "aborted"):
            state = "skipped"
        elif job.id in stalled:
            state = "stuck"
        jobs.append((job.id, job.task_name, state, None))
    by_status = {status.value: 0 for status in Status}
    for row in await manager.list_tasks_async():
        for status in by_status:
            by_status[status] += row.get(status, 0)
    assert by_status["todo"] == sum(j[2] in ("pending", "backing_off") for j in jobs)
    story.tell(jobs, renamed={"retryable": "pending"})  # its todo does not say which


async def main() -> None:
    async with app.open_async():
        if story.COMMAND == "build":
            await build()
        elif story.COMMAND == "hang":
            await app.run_worker_async(queues=["hangs"], concurrency=5)
        else:
            await app.run_worker_async(wait=False, install_signal_handlers=False)
            print(json.dumps(story.finished))


asyncio.run(main())
