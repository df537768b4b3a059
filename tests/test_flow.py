"""What history tells of arrivals, completions and depth, on the demo's sixty days."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pandas as pd
import pytest

from conftest import database
from queue_insights import demo, pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue

STEPS = ["download", "align", "translate", "separate", "segment", "enhance", "clip"]


@pytest.fixture(scope="module", params=["a", "b"])
def history(request: pytest.FixtureRequest, server: Callable[[str], str]) -> Iterator[Queue]:
    with database(server) as url:
        demo.seed(url, request.param, 2000)
        yield Queue(Database(url), pipeline.load())


def test_throughput_counts_every_completion_once_and_fills_empty_buckets(history: Queue) -> None:
    found = history.throughput(since="7D", bucket="1h")
    buckets = sorted(set(found.bucket))
    assert [b - a for a, b in itertools.pairwise(buckets)] == [pd.Timedelta("1h")] * (
        len(buckets) - 1
    )
    assert len(found) == len(buckets) * len(STEPS)
    with history.snapshot() as moment:
        rows = moment.connection.exec_driver_sql(
            "SELECT task_type, count(*) FROM audio_tasks "
            "WHERE spotify_track_id IS NOT NULL AND completed_at >= %s GROUP BY 1",
            (buckets[0],),
        ).all()
    expected = {task: n for task, n in rows if task in STEPS}
    assert found.groupby("task_type").completions.sum().to_dict() == expected


def test_arrivals_at_a_step_are_the_completions_of_the_step_before(history: Queue) -> None:
    found = history.throughput(since="7D", bucket="1D")
    by_task = found.pivot(index="bucket", columns="task_type", values=["arrivals", "completions"])
    for before, task in itertools.pairwise(STEPS):
        arrived, completed = by_task["arrivals"][task], by_task["completions"][before]
        # A completion that led to where the track is not (failed, sent back) is no arrival.
        assert (arrived <= completed).all()
        assert arrived.sum() >= 0.9 * completed.sum()


def test_depth_changes_by_what_came_and_went_and_ends_at_the_present(history: Queue) -> None:
    found = history.flow(since="30D", bucket="6h")
    at_work = ["missing", "pending", "retryable", "backing_off", "running", "stuck", "exhausted"]
    backlog = history.backlog().set_index("task_type")
    for task, steps in found.groupby("task_type"):
        after = steps.depth + steps.arrivals - steps.departures
        assert after.iloc[:-1].tolist() == steps.depth.iloc[1:].tolist()
        assert (steps.depth >= 0).all()
        present = backlog.loc[str(task)]
        assert after.iloc[-1] == sum(present[state] for state in at_work)


def test_a_day_bucket_begins_at_local_midnight(history: Queue) -> None:
    found = history.throughput(since="3D", bucket="1D", zone="Asia/Kolkata")
    local = found.bucket.dt.tz_convert("Asia/Kolkata")
    assert set(local.dt.strftime("%H:%M")) == {"00:00"}
    assert found.bucket.max() <= datetime.now(UTC)
