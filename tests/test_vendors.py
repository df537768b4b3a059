"""Other people's queues: what is said of them, against what their vendors' own words are."""

from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from conftest import Url
from queue_insights.errors import InputError
from queue_insights.reads import STATES
from vendors import VENDORS, Lived, lived

pytestmark = [pytest.mark.queues, pytest.mark.database]
# By a worker of theirs, tried; River's by its rule alone; the others do it by other means.
RETRIED = ["procrastinate", "oban", "pgboss", "pgboss10", "graphile_worker"]


@pytest.fixture(scope="module")
def story(request: pytest.FixtureRequest, server: Url) -> Iterator[Lived]:
    with lived(request.param, server) as made:
        yield made


def every(*vendors: str) -> pytest.MarkDecorator:
    """Once for each vendor; those whose packages are needed take long."""
    marked = [
        pytest.param(name, marks=[pytest.mark.proof] if VENDORS[name] else [])
        for name in vendors or VENDORS
    ]
    return pytest.mark.parametrize("story", marked, indirect=True)


@every()
def test_every_state_is_what_the_vendor_says(story: Lived) -> None:
    queue = story.queue()
    backlog = queue.backlog().set_index("task_type")
    found = {
        (kind, state): row[state]
        for kind, row in backlog.iterrows()
        for state in STATES
        if row[state]
    }
    assert found == Counter((j.kind, j.state) for j in story.jobs if j.state != "completed")
    assert (backlog["total"] == backlog[list(STATES)].sum(axis=1)).all()
    eligible = backlog["missing"] + backlog["pending"] + backlog["retryable"]
    assert (backlog["eligible"] == eligible).all()
    assert (backlog["waiting"] == eligible + backlog["backing_off"]).all()
    assert backlog["stage"].isna().all()
    if story.vendor in ("procrastinate", "pgqueuer"):  # todo, queued: also what is not due yet
        assert backlog["visible"].sum() == len(story.ids("pending", "backing_off"))
    settings, _, printed = queue.sql("backlog").partition("\n\n")
    with psycopg.connect(story.url, autocommit=True) as connection:
        connection.execute(settings)
        rows = connection.execute(printed.removesuffix("\n\nCOMMIT;")).fetchall()
    assert [row[1] for row in rows] == [*backlog.index]
    for state in STATES:
        assert set(queue.tasks(state=state)["id"].astype(str)) == story.ids(state)


@every()
def test_what_a_vendor_keeps_is_counted_and_what_it_does_not_is_refused(story: Lived) -> None:
    queue = story.queue()
    if story.vendor not in (*RETRIED, "river"):
        with pytest.raises(InputError, match=r"\A.*retr.*\Z"):
            queue.plan_retry()
    if story.vendor == "graphile_worker":
        with pytest.raises(InputError, match=r"\A.*delete.*\Z"):
            queue.throughput("1D", "1h")
    else:
        done = Counter(job.kind for job in story.jobs if job.state == "completed")
        counts = queue.throughput("1D", "1h").groupby("task_type")["completions"].sum()
        assert counts[counts > 0].to_dict() == done
    if story.vendor == "procrastinate":
        with pytest.raises(InputError, match=r"\A.*error.*\Z"):
            queue.failures()
        return
    texts = queue.tasks(state="exhausted").set_index("id")["error_message"]
    exhausted = [job for job in story.jobs if job.state == "exhausted"]
    assert {str(id): text for id, text in texts.items()} == {j.id: j.error for j in exhausted}
    found = queue.failures().set_index("task_type")
    again = [job for job in story.jobs if job.state in ("retryable", "backing_off") and job.error]
    assert found["rows"].to_dict() == Counter(job.kind for job in exhausted + again)
    of_kind = queue.tasks(failure=found.loc[exhausted[0].kind, "failure"])
    assert {str(id) for id in of_kind["id"]} == {job.id for job in exhausted}
    assert found["exhausted"].sum() == found.loc[exhausted[0].kind, "exhausted"] == len(exhausted)


@every(*RETRIED)  # after the others, as it changes what is there
def test_the_vendors_worker_finishes_exactly_what_a_retry_planned(story: Lived) -> None:
    queue, exhausted = story.queue(), sorted(story.ids("exhausted"))
    assert story.ids("pending", "retryable") <= story.work()  # then nothing else can run
    plan = queue.plan_retry(ids=exhausted[:3])
    assert plan.rows == 3
    assert not story.work()  # planning changes nothing
    for ids in (exhausted[:3], exhausted[3:]):
        plan = queue.plan_retry(ids=ids if len(ids) > 1 else None)
        assert plan.apply(confirm=plan.token).row["rows_done"] == plan.rows == len(ids)
        assert story.work() == set(ids)
    assert queue.plan_retry().rows == 0


@every("river")
def test_river_retries_by_its_own_rule(story: Lived) -> None:
    queue, exhausted = story.queue(), sorted(story.ids("exhausted"))
    plan = queue.plan_retry(ids=exhausted[:3])
    plan.apply(confirm=plan.token)
    pending = set(queue.tasks(state="pending")["id"].astype(str))
    assert pending == story.ids("pending") | set(exhausted[:3])
    assert set(queue.tasks(state="exhausted")["id"].astype(str)) == set(exhausted[3:])
