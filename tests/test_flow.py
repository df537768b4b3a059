"""What history tells of arrivals, completions and depth, on the demo's sixty days, and behind a
stage that feeds several tasks: who comes after them comes with the last of them."""

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from conftest import FORKED, TASKS, Bench
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue


def test_throughput_counts_every_completion_once_and_fills_empty_buckets(history: Queue) -> None:
    found = history.throughput(since="7D", bucket="1h")
    buckets = sorted(set(found.bucket))
    assert {b - a for a, b in itertools.pairwise(buckets)} == {pd.Timedelta("1h")}
    assert len(found) == len(buckets) * len(TASKS)
    with history.snapshot() as moment:
        rows = moment.connection.exec_driver_sql(
            "SELECT task_type, count(*) FROM audio_tasks "
            "WHERE spotify_track_id IS NOT NULL AND completed_at >= %s GROUP BY 1",
            (buckets[0],),
        ).all()
    expected = {task: n for task, n in rows if task in TASKS}
    assert found.groupby("task_type").completions.sum().to_dict() == expected


def test_a_day_bucket_begins_at_local_midnight(history: Queue) -> None:
    found = history.throughput(since="3D", bucket="1D", zone="Asia/Kolkata")
    local = found.bucket.dt.tz_convert("Asia/Kolkata")
    assert set(local.dt.strftime("%H:%M")) == {"00:00"}
    assert found.bucket.max() <= datetime.now(UTC)


# -- behind a branch ----------------------------------------------------------------------------

HOUR = timedelta(hours=1)
Event = tuple[str, str, pd.Timestamp]  # arrivals or completions, task, the hour


@pytest.fixture
def queue(bench: Bench, tmp_path: Path) -> Queue:
    file = tmp_path / "forked.yaml"
    file.write_text(FORKED)
    return Queue(Database(bench.url), pipeline.load(file))


def history_of(bench: Bench, tracks: int) -> Counter[Event]:
    """*tracks* that came one an hour; every other is through, the rest wait at the last step, some
    with a row. What happened in which hour."""
    ((now,),) = bench.sql("SELECT date_trunc('hour', now(), 'UTC') + interval '1 minute'")
    happened: Counter[Event] = Counter()

    def done(track: str, task: str, came: datetime, at: datetime) -> None:
        bench.task(track, task, "completed", created_at=came, completed_at=at, attempts=1)
        for kind, time in (("arrivals", came), ("completions", at)):
            happened[kind, task, pd.Timestamp(time).floor("h")] += 1

    for i in range(tracks):
        track = bench.track(f"track {i}", "ready" if i % 2 else "translated")
        came = now - timedelta(hours=tracks + 9 - i)
        done(track, "download", came, came + HOUR)
        # Now the one, now the other is the last.
        aligned, translated = came + (2 + i % 3) * HOUR, came + (3 - i % 2) * HOUR
        done(track, "align", came + HOUR, aligned)
        done(track, "translate", came + HOUR, translated)
        last = max(aligned, translated)
        if i % 2:
            done(track, "segment", last, last + HOUR)
            continue
        happened["arrivals", "segment", pd.Timestamp(last).floor("h")] += 1
        if i % 4:
            bench.task(track, "segment", created_at=last + HOUR)
    return happened


def counted(frame: pd.DataFrame, *kinds: str) -> Counter[Event]:
    found = frame.set_index(["task_type", "bucket"])
    return Counter({(kind, *at): n for kind in kinds for at, n in found[kind].items() if n})


def test_history_counts_the_arrival_after_a_branch_once_with_its_last_completion(
    bench: Bench, queue: Queue
) -> None:
    happened = history_of(bench, 24)
    assert counted(queue.throughput("4D"), "arrivals", "completions") == happened
    flow = queue.flow("4D").rename(columns={"departures": "completions"})
    assert counted(flow, "arrivals", "completions") == happened
    ends = flow[flow.bucket == flow.bucket.max()].set_index("task_type")
    there = ends.depth + ends.arrivals - ends.completions
    assert there.to_dict() == {"download": 0, "align": 0, "translate": 0, "segment": 12}
    assert list(queue.durations("4D").completions) == [24, 24, 24, 12]


def test_a_forecast_after_a_branch_knows_who_came_and_went(bench: Bench, queue: Queue) -> None:
    history_of(bench, 120)
    found = queue.eta().set_index("task_type")
    assert (found.waiting["segment"], found.status["segment"]) == (60, "growing")
    assert found.rate_per_hour["segment"] == pytest.approx(0.5, abs=0.1)
    assert found.growth_per_hour["segment"] == pytest.approx(0.5, abs=0.1)
    assert list(found.waiting[:3]) == [0, 0, 0]
