"""procrastinate: see runner.py."""

import asyncio

import procrastinate
import runner

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=runner.URL))
STATES = {"doing": "running", "succeeded": "completed", "failed": "exhausted"}
STATES |= {"cancelled": "skipped", "aborted": "skipped"}


def task(kind: str) -> procrastinate.tasks.Task:
    wait = procrastinate.RetryStrategy(wait=int(runner.TEN_YEARS.total_seconds()))

    async def run(context: procrastinate.JobContext) -> None:
        if runner.act(kind, context.job.id):
            await asyncio.Event().wait()

    queue, retry = "hangs" if kind == "hang" else "default", wait if kind != "doomed" else False
    return app.task(name=kind, queue=queue, pass_context=True, retry=retry)(run)


class Procrastinate(runner.Runner):
    HASTEN = "UPDATE procrastinate_jobs SET scheduled_at = now() WHERE task_name = %s"
    SILENCE = """
        UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'
        WHERE id IN (SELECT worker_id FROM procrastinate_jobs WHERE id = ANY (%s))
    """
    tasks = {kind: task(kind) for kind in runner.KINDS}  # noqa: RUF012

    async def make(self) -> None:
        await app.schema_manager.apply_schema_async()

    async def enqueue(self, kind: str) -> int:
        how = {"schedule_in": {"days": runner.TEN_YEARS.days}} if kind == "later" else {}
        return await self.tasks[kind].configure(**how).defer_async()

    async def work(self) -> None:
        await app.run_worker_async(wait=False, install_signal_handlers=False)

    async def hang(self) -> None:
        await app.run_worker_async(queues=["hangs"], concurrency=5)

    async def drop(self, jobs: list[int]) -> None:
        for job in jobs:
            await app.job_manager.cancel_job_by_id_async(job)

    async def jobs(self) -> list[tuple]:
        stalled = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=30)
        states = {job.id: "stuck" for job in stalled}
        jobs = await app.job_manager.list_jobs_async()
        for job in jobs:
            state = STATES.get(job.status) or runner.waiting(job.scheduled_at)
            states.setdefault(job.id, state)
        by_kind = await app.job_manager.list_tasks_async()
        waiting = [state for state in states.values() if state in ("pending", "backing_off")]
        assert sum(kind["todo"] for kind in by_kind) == len(waiting)
        return [(job.id, job.task_name, states[job.id], None) for job in jobs]


async def main() -> None:
    async with app.open_async():
        await Procrastinate().live()


asyncio.run(main())
