"""django-tasks-db: see runner.py. It tries nothing twice, cancels nothing, calls nothing stuck."""

import asyncio
import os
import threading
from datetime import UTC, datetime, timedelta

import django
import runner
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # nothing here truly runs at a time
where = conninfo_to_dict(runner.URL)
database = {"ENGINE": "django.db.backends.postgresql", "NAME": where.pop("dbname")}
database |= {name.upper(): value for name, value in where.items()}
tasks = {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["default", "hangs"]}
settings.configure(
    **{"INSTALLED_APPS": ["django_tasks", "django_tasks_db"], "USE_TZ": True},
    **{"DATABASES": {"default": database}, "TASKS": {"default": tasks}},
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django_tasks import task  # noqa: E402
from django_tasks_db.models import DBTaskResult  # noqa: E402


def handler(kind: str):
    def run(context) -> None:
        if runner.act(kind, context.task_result.id):
            threading.Event().wait()

    run.__name__ = run.__qualname__ = kind
    queue = "hangs" if kind == "hang" else "default"
    return task(queue_name=queue, takes_context=True)(run)


resize, doomed, later, mail, hang = map(handler, ("resize", "doomed", "later", "mail", "hang"))


class Runner(runner.Runner):
    STATES = "READY=pending RUNNING=running SUCCESSFUL=completed FAILED=exhausted"
    SILENCE = """
        UPDATE django_tasks_database_dbtaskresult SET started_at = now() - interval '1 day'
        WHERE id = ANY (%s::uuid[])
    """

    async def make(self) -> None:
        call_command("migrate", verbosity=0)

    async def enqueue(self, kind: str) -> str:
        how = {"run_after": datetime.now(UTC) + runner.TEN_YEARS} if kind == "later" else {}
        return globals()[kind].using(**how).enqueue().id

    async def work(self, queue: str = "default") -> None:
        call_command("db_worker", queue_name=queue, batch=True, startup_delay=False, verbosity=0)

    async def hang(self) -> None:
        await self.work("hangs")

    async def taken(self, count: str) -> list[str]:
        jobs = []
        for _ in range(int(count)):  # a worker runs one at a time
            jobs += await super().taken("1")
        return jobs

    async def jobs(self) -> list[tuple]:
        ready = set(DBTaskResult.objects.ready())
        jobs, since = [], datetime.now(UTC) - timedelta(minutes=30)
        for row in DBTaskResult.objects.all():
            due = None if row in ready else row.run_after
            alive = row.started_at and row.started_at > since
            jobs.append((row.id, row.task_path, row.status, due, alive, row.traceback or None))
        return jobs


asyncio.run(Runner().live())
