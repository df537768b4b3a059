"""procrastinate: see runner.py."""

import procrastinate
import runner

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=runner.URL))


def task(kind: str) -> procrastinate.tasks.Task:
    wait = procrastinate.RetryStrategy(wait=int(runner.TEN_YEARS.total_seconds()))

    async def run(context: procrastinate.JobContext) -> None:
        await runner.handle(kind, context.job.id)

    queue, retry = "hangs" if kind == "hang" else "default", wait if kind != "doomed" else False
    return app.task(name=kind, queue=queue, pass_context=True, retry=retry)(run)


class Runner(runner.Runner):
    STATES = "todo=pending doing=running succeeded=completed failed=exhausted cancelled=skipped"
    HASTEN = "UPDATE procrastinate_jobs SET scheduled_at = now() WHERE task_name = %s"
    SILENCE = """
        UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'
        WHERE id IN (SELECT worker_id FROM procrastinate_jobs WHERE id = ANY (%s))
    """

    def __init__(self, _: object) -> None:
        self.tasks = {kind: task(kind) for kind in runner.KINDS}
        self.make = app.schema_manager.apply_schema_async

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
        dead = {job.id for job in stalled}
        jobs = await app.job_manager.list_jobs_async()
        by_kind = await app.job_manager.list_tasks_async()
        assert sum(kind["todo"] for kind in by_kind) == sum(job.status == "todo" for job in jobs)
        return [
            (job.id, job.task_name, job.status, job.scheduled_at, job.id not in dead, None)
            for job in jobs
        ]


runner.play(app.open_async, Runner)
