"""``Queue.eta``: what it reckons with is what the rows say, and it refuses where it cannot know."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pandas as pd
import psycopg
import pytest

from conftest import Bench, database
from queue_insights import demo, pipeline
from queue_insights.database import Database
from queue_insights.forecast import steps
from queue_insights.queue import Queue
from queue_insights.sql import frames

STEPS = ("download", "align", "translate", "separate", "segment", "enhance", "clip")
# Arrivals of what was completed since, or waits or is worked on now, by plain SQL.
ARRIVED = """
    SELECT count(*) FROM (
        SELECT coalesce(before.completed_at, row.created_at) AS at
        FROM audio_tasks AS row LEFT JOIN audio_tasks AS before
            ON before.spotify_track_id = row.spotify_track_id AND before.task_type = %(before)s
        WHERE row.task_type = %(task)s AND row.status = 'completed'
          AND row.completed_at IS NOT NULL
        UNION ALL
        SELECT coalesce(before.completed_at, row.created_at, track.updated_at)
        FROM tracks AS track
        LEFT JOIN audio_tasks AS row ON row.spotify_track_id = track.spotify_track_id
                                    AND row.task_type = %(task)s
        LEFT JOIN audio_tasks AS before ON before.spotify_track_id = track.spotify_track_id
                                       AND before.task_type = %(before)s
        WHERE track.stage = %(stage)s AND (row.id IS NULL
            OR row.status IN ('pending', 'failed') AND row.attempts < row.max_attempts
            OR row.status = 'running' AND row.last_attempt_at >= now() - interval '30 min')
    ) AS arrival WHERE at >= %(start)s AND at < %(end)s
"""
COMPLETED = """
    SELECT count(*) FROM audio_tasks WHERE task_type = %(task)s AND spotify_track_id IS NOT NULL
    AND completed_at >= %(start)s AND completed_at < %(end)s
"""


@pytest.fixture(scope="module", params=["a", "b"])
def history(
    request: pytest.FixtureRequest, server: Callable[[str], str]
) -> Iterator[tuple[Queue, psycopg.Connection]]:
    with database(server) as url:
        demo.seed(url, request.param, 2000)
        with psycopg.connect(url, autocommit=True) as connection:
            yield Queue(Database(url), pipeline.load()), connection


def test_it_reckons_with_the_arrivals_and_completions_that_the_rows_tell(
    history: tuple[Queue, psycopg.Connection],
) -> None:
    queue, connection = history
    with queue.snapshot() as moment:
        found = queue._read("eta", task=None).set_index("task_type")
    zero = moment.as_of - steps.HISTORY
    stages = {step.task: step.stage for step in queue.pipeline.steps}
    for before, task in zip((None, *STEPS), STEPS, strict=False):
        for kind, query in (("arrivals", ARRIVED), ("completions", COMPLETED)):
            numbers, counts = found.loc[task, [f"{kind}_interval", f"{kind}_n"]]
            told = pd.Series(counts, index=numbers).groupby(lambda i: i // 288).sum()
            for day in (0, 1, 20, 44):
                span = {
                    "start": zero + timedelta(days=day),
                    "end": zero + timedelta(days=day + 1),
                }
                names = {"task": task, "before": before, "stage": stages[task]}
                (expected,) = connection.execute(query, span | names).fetchone() or (None,)
                assert told.get(day, 0) == expected, (task, kind, day)


def test_many_events_counted_several_at_a_time_tell_the_same(
    history: tuple[Queue, psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, _ = history
    with queue.snapshot():
        exact = queue.eta().set_index("task_type")
        monkeypatch.setattr(steps, "EVENTS", 400)
        rough = queue.eta().set_index("task_type")
    assert (exact["waiting"] == rough["waiting"]).all()
    assert (exact["rate_per_hour"] - rough["rate_per_hour"]).abs().max() < 0.1
    both = exact["clear_p50_seconds"] / rough["clear_p50_seconds"]
    assert both["align"] == pytest.approx(1, rel=0.25)


def test_a_busy_queue_is_not_looked_back_on_further_than_needed(
    history: tuple[Queue, psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, _ = history
    with queue.snapshot() as moment:
        reach = lambda: frames.enough(moment.connection, queue.schema, moment.as_of)  # noqa: E731
        assert reach() == steps.HISTORY
        monkeypatch.setattr(frames, "ROWS", 10)
        assert reach() == frames.SHORTEST
        first = min(queue._read("eta", task="align")["completions_interval"][0])
    assert first >= (steps.HISTORY - frames.SHORTEST).total_seconds() / steps.WIDTH


def complete(bench: Bench, task: str, number: int, hours_ago: float) -> None:
    done = f"{hours_ago} hours"
    track = bench.track(f"{task} {number}", "ready")
    bench.task(track, task, "completed", attempts=1)
    bench.sql(
        "UPDATE audio_tasks SET completed_at = now() - %s::interval, created_at = now() - "
        "%s::interval - interval '2 hours', last_attempt_at = now() - %s::interval "
        "WHERE spotify_track_id = %s",
        *(done, done, done, track),
    )


def test_it_gives_no_range_where_it_cannot_know(fresh: Callable[[str], Bench]) -> None:
    bench = fresh("a")
    for i in range(9):  # too few have ever been done
        complete(bench, "align", i, i + 1)
    for i in range(300):  # nothing has been done for two days, after one an hour
        complete(bench, "translate", i, 48 + i)
    for stage in ("audio_ready", "aligned"):
        bench.sql(
            "INSERT INTO tracks (spotify_track_id, title, artists, stage, updated_at) SELECT "
            "%s || i, 'Song', '[]', %s, now() - interval '40 h' FROM generate_series(1, 30) i",
            *(stage, stage),
        )
    found = bench.queue.eta().set_index("task_type")
    expected = {"align": "insufficient_history", "translate": "stalled", "clip": "empty"}
    assert found["status"][list(expected)].to_dict() == expected
    for task in ("align", "translate"):
        assert found.loc[task, "waiting"] == 30
        assert found.loc[task].filter(regex="^(clear|empty)_").isna().all()
    assert found.loc["clip", "clear_p95_seconds"] == 0


def test_the_stuck_and_the_exhausted_are_not_waited_for(fresh: Callable[[str], Bench]) -> None:
    bench = fresh("b")
    bench.task(bench.track("stuck", "audio_ready"), "align", "running", attempts=1)
    bench.task(bench.track("exhausted", "audio_ready"), "align", "failed", attempts=3)
    bench.track("waits", "audio_ready")
    with bench.queue.snapshot():
        assert bench.queue.eta("align")["waiting"].tolist() == [1]
        assert bench.queue._read("eta", task="align")[["moving"]].iloc[0].tolist() == [1]
        assert sum(bench.queue._read("eta", task="align")["arrivals_n"][0]) == 1
