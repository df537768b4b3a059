"""Actions beside worker processes that follow the worker's rule, on a live queue.

Every change of a task row is recorded with who made it, so that what the actions changed is known
for certain; the workers tell every error they met.
"""

from collections.abc import Callable

import pytest

from conftest import Bench
from operating import RECORD, changes, give_rows, many, operable, rows, small_batches, video
from processes import until
from queue_insights.actions import pace
from workers import STEPS, crew

pytestmark = pytest.mark.proof
# What the application's own way of working can raise beside any action (the README names them).
EXPECTED = {("ensure", "23505"), ("start", "gone")}
STAGES = ("lyrics_acquired", "audio_ready", "aligned", "translated")


@pytest.fixture
def live(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A queue with work of every kind, and batches small enough to be many."""
    monkeypatch.setattr(pace, "REST", 1.0)
    small_batches(monkeypatch, chunk=10, first=2, largest=10)
    for stage in STAGES:
        many(bench, stage, 150, prefix=stage)
    stuck = {"attempts": "1", "last_attempt_at": "now() - interval '3 hours'"}
    failed = {"attempts": "3", "error_message": "'out of memory'"}
    give_rows(bench, many(bench, "audio_ready", 50, "stuck"), "align", "running", **stuck)
    give_rows(bench, many(bench, "aligned", 50, "out"), "translate", "failed", **failed)
    give_rows(bench, many(bench, "translated", 50, "orphan"), "download", "pending")
    video(bench, "align", "running")
    video(bench, "align", "pending")
    bench.connection.execute(RECORD)
    return bench


def made_by_actions(bench: Bench) -> None:
    """What section 5 allows, over the record of all changes."""
    ((then,),) = bench.sql("SELECT to_jsonb(now() - interval '30 minutes')")
    for what, old, new, _ in changes(bench):
        assert (new or old).get("subject_type", "track") == "track"
        if what == "INSERT":
            assert new["status"] in ("pending", "failed")
        elif what == "DELETE":
            assert old["status"] == "pending"
        else:
            assert old["status"] != "completed"
            if old["status"] == "running":
                assert old["last_attempt_at"] < then
                assert new["status"] == "pending"
            if new["status"] == "running":
                assert old["status"] == "pending"  # a reset undone: as it was, nobody at work on it


def test_no_worker_meets_an_error_that_is_not_its_own_while_all_actions_run(live: Bench) -> None:
    queue = operable(live.url)
    kept: list[int] = []
    with crew(live.url, live.variant, 3, stages=STAGES) as met:
        for _ in range(2):
            for plan in (queue.plan_backfill, queue.plan_reset, queue.plan_retry):
                run = plan().apply(max_rows=9999)
                assert run.state == "finished"
                run.undo()
                kept.append(run.row["rows_kept"])
            queue.plan_prune(tasks="download").apply(max_rows=9999)
        backfill = queue.plan_backfill(tasks=["align", "translate"]).apply(max_rows=9999)
        assert backfill.state == "finished"
    assert {tuple(error) for worker in met for error in worker["errors"]} <= EXPECTED
    assert all(worker["completed"] > 10 for worker in met)
    assert sum(kept) > 0  # some moved on between a run and its undo, or this has shown nothing
    made_by_actions(live)
    assert not live.sql(
        "SELECT 1 FROM audio_tasks WHERE spotify_track_id IS NOT NULL "
        "GROUP BY spotify_track_id, task_type HAVING count(*) > 1"
    )
    inserted = [(new, stage) for what, _, new, stage in changes(live) if what == "INSERT"]
    assert inserted
    assert all(STEPS.get(stage) == new["task_type"] for new, stage in inserted)
    videos = [row for row in rows(live.connection).values() if "tiktok_video" in row]
    assert len(videos) == (2 if live.variant == "b" else 0)


def test_without_actions_these_workers_meet_no_error(fresh: Callable[[str], Bench]) -> None:
    bench = fresh("b")
    many(bench, "audio_ready", 300)
    with crew(bench.url, "b", 2, stages=("audio_ready", "aligned")) as met:
        begun = "SELECT count(*) >= 100 FROM audio_tasks"
        until(lambda: bench.sql(begun)[0][0], "the workers to begin on a hundred tasks")
    assert [worker["errors"] for worker in met] == [[], []]
