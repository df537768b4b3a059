"""A stage that feeds several tasks, in what history tells: who comes after them comes with the last
of them."""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from conftest import Bench
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue

TASKS = ["download", "align", "translate", "clip"]
BRANCHING = """
name: branching
tracks: {table: tracks, id: spotify_track_id}
tasks: {table: audio_tasks, track_id: spotify_track_id}
stages: [pending, lyrics_acquired, audio_ready, aligned, ready]
terminal: [ready]
steps:
  - {stage: lyrics_acquired, task: download}
  - {stage: audio_ready, task: align}
  - {stage: audio_ready, task: translate}
  - {stage: aligned, task: clip}
"""
HOUR = timedelta(hours=1)
Event = tuple[str, str, pd.Timestamp]  # arrivals or completions, task, the hour


@pytest.fixture
def queue(bench: Bench, tmp_path: Path) -> Queue:
    file = tmp_path / "branching.yaml"
    file.write_text(BRANCHING)
    return Queue(Database(bench.url), pipeline.load(file))


def history(bench: Bench, tracks: int) -> Counter[Event]:
    """*tracks* that came one an hour; every other is through, the rest wait at the last step, some
    with a row. What happened in which hour."""
    ((now,),) = bench.sql("SELECT date_trunc('hour', now(), 'UTC') + interval '1 minute'")
    happened: Counter[Event] = Counter()

    def done(track: str, task: str, came: datetime, at: datetime) -> None:
        bench.task(track, task, "completed", created_at=came, completed_at=at, attempts=1)
        for kind, time in (("arrivals", came), ("completions", at)):
            happened[kind, task, pd.Timestamp(time).floor("h")] += 1

    for i in range(tracks):
        track = bench.track(f"track {i}", "ready" if i % 2 else "aligned")
        came = now - timedelta(hours=tracks + 9 - i)
        done(track, "download", came, came + HOUR)
        # Now the one, now the other is the last.
        aligned, translated = came + (2 + i % 3) * HOUR, came + (3 - i % 2) * HOUR
        done(track, "align", came + HOUR, aligned)
        done(track, "translate", came + HOUR, translated)
        last = max(aligned, translated)
        if i % 2:
            done(track, "clip", last, last + HOUR)
            continue
        happened["arrivals", "clip", pd.Timestamp(last).floor("h")] += 1
        if i % 4:
            bench.task(track, "clip", created_at=last + HOUR)
    return happened


def counted(frame: pd.DataFrame, *kinds: str) -> Counter[Event]:
    return Counter(
        {
            (kind, row.task_type, row.bucket): int(getattr(row, kind))
            for row in frame.itertuples()
            for kind in kinds
            if getattr(row, kind)
        }
    )


def test_throughput_counts_the_arrival_after_a_branch_once_with_its_last_completion(
    bench: Bench, queue: Queue
) -> None:
    happened = history(bench, 24)
    assert counted(queue.throughput("4D"), "arrivals", "completions") == happened


def test_flow_and_durations_after_a_branch(bench: Bench, queue: Queue) -> None:
    happened = history(bench, 24)
    flow = queue.flow("4D").rename(columns={"departures": "completions"})
    assert counted(flow, "arrivals", "completions") == happened
    ends = flow[flow.bucket == flow.bucket.max()]
    there = ends.depth + ends.arrivals - ends.completions
    assert dict(zip(ends.task_type, there, strict=True)) == dict.fromkeys(TASKS, 0) | {"clip": 12}
    assert list(queue.durations("4D").completions) == [24, 24, 24, 12]


def test_a_forecast_after_a_branch_knows_who_came_and_went(bench: Bench, queue: Queue) -> None:
    history(bench, 120)
    found = queue.eta().set_index("task_type")
    assert (found.waiting["clip"], found.status["clip"]) == (60, "growing")
    assert found.rate_per_hour["clip"] == pytest.approx(0.5, abs=0.1)
    assert found.growth_per_hour["clip"] == pytest.approx(0.5, abs=0.1)
    assert list(found.waiting[:3]) == [0, 0, 0]
