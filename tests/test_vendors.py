"""Other people's queues: what is said of them, against what their vendors' own words are."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.errors import InputError
from queue_insights.queue import Queue
from vendors import VENDORS, Lived, Stories

pytestmark = [pytest.mark.queues, pytest.mark.database]
STATES = [
    *("missing", "pending", "retryable", "backing_off", "running", "stuck", "exhausted", "drifted"),
    *("skipped", "blocked", "other"),
]
# By a worker of theirs, tried; River's by its rule alone.
RETRIED = ["procrastinate", "oban", "pgboss", "pgboss10", "graphile_worker"]
NO_RETRY = ["pgqueuer", "good_job", "solid_queue", "que", "chancy", "django_tasks"]
NO_ERRORS = ["procrastinate"]


def opened(lived: Lived) -> Queue:
    return Queue(Database(lived.url), pipeline.load(VENDORS[lived.vendor].pipeline))


@pytest.fixture
def lived(request: pytest.FixtureRequest, stories: Stories) -> Iterator[Lived]:
    with stories.lived(request.param) as made:
        yield made


def every(*vendors: str) -> pytest.MarkDecorator:
    """Once for each vendor; those whose packages are needed take long."""
    marked = [
        pytest.param(name, marks=[pytest.mark.proof] if VENDORS[name].command else [])
        for name in vendors or VENDORS
    ]
    return pytest.mark.parametrize("lived", marked, indirect=True)


def refused(call: Any) -> str:
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@every()
def test_every_state_is_what_the_vendor_says(lived: Lived) -> None:
    queue = opened(lived)
    backlog = queue.backlog().set_index("task_type")
    found = {
        kind: {state: int(row[state]) for state in STATES if row[state]}
        for kind, row in backlog.iterrows()
        if row["total"]
    }
    assert found == lived.counts()
    assert (backlog["total"] == backlog[STATES].sum(axis=1)).all()
    eligible = backlog["missing"] + backlog["pending"] + backlog["retryable"]
    assert (backlog["eligible"] == eligible).all()
    assert (backlog["waiting"] == eligible + backlog["backing_off"]).all()
    assert backlog["stage"].isna().all()
    for state in STATES:
        jobs = queue.tasks(state=state)
        assert set(jobs["id"].astype(str)) == lived.ids(state)


@every("procrastinate", "pgqueuer")
def test_visible_is_the_vendors_own_count_of_what_waits(lived: Lived) -> None:
    """Which mixes what can run with what is not due yet: todo, queued."""
    assert opened(lived).backlog()["visible"].sum() == len(lived.ids("pending", "backing_off"))


@every(*(vendor for vendor in VENDORS if vendor not in NO_ERRORS))
def test_failures_are_those_that_the_vendor_keeps(lived: Lived) -> None:
    queue = opened(lived)
    failed = [
        job
        for job in lived.jobs
        if job.state in ("exhausted", "retryable", "backing_off") and job.error
    ]
    texts = queue.tasks(state="exhausted").set_index("id")["error_message"]
    assert {str(id): text for id, text in texts.items()} == {
        job.id: job.error for job in failed if job.state == "exhausted"
    }
    found = queue.failures().set_index("task_type")
    assert found["rows"].to_dict() == Counter(job.kind for job in failed)  # a message for each kind
    exhausted = Counter(job.kind for job in failed if job.state == "exhausted")
    assert found["exhausted"].to_dict() == {kind: exhausted[kind] for kind in found.index}


@every(*NO_ERRORS)
def test_who_keeps_no_error_text_says_so(lived: Lived) -> None:
    assert "error" in refused(opened(lived).failures)


@every()
def test_throughput_counts_what_the_vendor_keeps_of_the_past(lived: Lived) -> None:
    queue = opened(lived)
    if lived.vendor == "graphile_worker":
        assert "delete" in refused(lambda: queue.throughput("1D", "1h"))
        return
    done = Counter(job.kind for job in lived.jobs if job.state == "completed")
    found = queue.throughput("1D", "1h").groupby("task_type")["completions"].sum()
    assert found[found > 0].to_dict() == done


@every(*RETRIED)
def test_the_vendors_worker_finishes_exactly_what_a_retry_planned(lived: Lived) -> None:
    queue, exhausted = opened(lived), sorted(lived.ids("exhausted"))
    assert lived.ids("pending", "retryable") <= lived.work()  # then nothing else can run
    for ids in (exhausted[:3], None):
        plan = queue.plan_retry(ids=ids)
        assert plan.rows == (3 if ids else 1)
        assert not lived.work()  # planning changes nothing
        run = plan.apply(confirm=plan.token)
        assert run.row["rows_done"] == plan.rows
        assert lived.work() == set(ids or exhausted[3:])
    assert queue.plan_retry().rows == 0


@every("river")
def test_river_retries_by_its_own_rule(lived: Lived) -> None:
    queue, exhausted = opened(lived), sorted(lived.ids("exhausted"))
    plan = queue.plan_retry(ids=exhausted[:3])
    plan.apply(confirm=plan.token)
    pending = set(queue.tasks(state="pending")["id"].astype(str))
    assert pending == lived.ids("pending") | set(exhausted[:3])
    assert set(queue.tasks(state="exhausted")["id"].astype(str)) == set(exhausted[3:])


@every(*NO_RETRY)
def test_who_retries_by_other_means_is_refused_with_the_reason(lived: Lived) -> None:
    assert "retr" in refused(opened(lived).plan_retry)
