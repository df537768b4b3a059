"""django-tasks-db: see story.py. It tries nothing twice, cancels nothing, calls nothing stuck."""

import threading
from datetime import UTC, datetime, timedelta

import django
import story
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

where = conninfo_to_dict(story.URL)
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

STUCK_AFTER = timedelta(minutes=30)  # ours: it has no notion of it


def handler(kind: str):
    def run(context) -> None:
        if story.act(kind, context.task_result.id):
            threading.Event().wait()

    run.__name__ = run.__qualname__ = kind
    queue = "hangs" if kind == "hang" else "default"
    return task(queue_name=queue, takes_context=True)(run)


resize, doomed, later, mail, hang = map(handler, ("resize", "doomed", "later", "mail", "hang"))


def work(queue: str) -> None:
    call_command("db_worker", queue_name=queue, batch=True, startup_delay=False, verbosity=0)


def build() -> None:
    call_command("migrate", verbosity=0)

    def enqueue(what, count: int, **how) -> list[str]:
        return [what.using(**how).enqueue().id for _ in range(count)]

    enqueue(resize, story.DONE)
    enqueue(doomed, 4)
    work("default")
    enqueue(resize, 6)
    enqueue(later, 5, run_after=datetime.now(UTC) + story.TEN_YEARS)
    enqueue(mail, 6)
    dead = enqueue(hang, story.HUNG_BY_THE_DEAD)
    for _ in dead:  # a worker runs one at a time
        story.killed(1)
    rows = DBTaskResult.objects
    rows.filter(id__in=dead).update(started_at=datetime.now(UTC) - timedelta(days=1))
    enqueue(hang, story.HUNG_BY_THE_LIVING)
    story.killed(story.HUNG_BY_THE_LIVING)

    found = {"completed": rows.successful(), "exhausted": rows.failed(), "pending": rows.ready()}
    states = {row.id: state for state, all in found.items() for row in all}
    for row in rows.running():
        lost = row.started_at < datetime.now(UTC) - STUCK_AFTER
        states[row.id] = "stuck" if lost else "running"
    jobs = []
    for row in rows.all():
        state = states.get(row.id, "backing_off")
        jobs.append((row.id, row.task_path, state, row.traceback or None))
    story.tell(jobs, renamed={"skipped": ""}, without="slow flaky")


if story.COMMAND == "build":
    build()
else:
    work("hangs")
