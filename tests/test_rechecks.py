"""What changes between a plan and its batches, and rows that somebody has locked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from conftest import Bench
from operating import many, operable, pending, rows
from queue_insights import pipeline
from queue_insights.actions import pace, runs

LONG_AGO = sql.SQL("now() - interval '5 hours'")
STUCK = {"attempts": 1, "last_attempt_at": LONG_AGO}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Start a run as a process that dies before its first batch."""

    def begin(plan: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(runs, "_drive", lambda run, fence, pause: run)
            return plan.apply(confirm=plan.token)

    return begin


def test_every_row_is_checked_again_in_its_batch_and_what_no_longer_qualifies_is_listed(
    bench: Bench, begun: Callable[[Any], Any]
) -> None:
    def stuck(name: str) -> int:
        return bench.task(bench.track(name, "audio_ready"), "align", "running", **STUCK)

    ids = {name: stuck(name) for name in ("same", "alive", "done", "moved", "gone")}
    run = begun(operable(bench.url).plan_reset())
    bench.sql("UPDATE audio_tasks SET last_attempt_at = now() WHERE id = %s", ids["alive"])
    bench.sql("UPDATE audio_tasks SET status = 'completed' WHERE id = %s", ids["done"])
    bench.sql("UPDATE tracks SET stage = 'aligned' WHERE spotify_track_id = 'moved'")
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 'gone'")
    before = rows(bench.connection)
    run.resume()
    after = rows(bench.connection)
    assert [id for id in before if before[id] != after[id]] == [ids["same"]]
    assert run.dropped().set_index("id").reason.to_dict() == {
        str(ids["alive"]): "its row is running",
        str(ids["done"]): "its row is completed",
        str(ids["moved"]): "its track is at aligned",
        str(ids["gone"]): "it is gone",
    }
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (1, 4)


def test_backfill_leaves_out_tracks_that_got_a_row_or_moved_on_since(
    bench: Bench, begun: Callable[[Any], Any]
) -> None:
    for name in ("same", "has row", "moved", "gone"):
        bench.track(name, "audio_ready")
    run = begun(operable(bench.url).plan_backfill())
    own = bench.task("has row", "align", "running", attempts=1)
    bench.sql("UPDATE tracks SET stage = 'failed' WHERE spotify_track_id = 'moved'")
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 'gone'")
    run.resume()
    found = bench.sql("SELECT spotify_track_id FROM audio_tasks WHERE id <> %s", own)
    assert found == [("same",)]
    assert run.dropped().set_index("id").reason.to_dict() == {
        "has row": "its row is running",
        "moved": "its track is at failed",
        "gone": "it is gone",
    }


def test_prune_leaves_an_orphan_whose_track_came_back_to_its_stage(
    bench: Bench, begun: Callable[[Any], Any]
) -> None:
    id = bench.task(bench.track("t", "aligned"), "align", "pending")
    run = begun(operable(bench.url).plan_prune())
    bench.sql("UPDATE tracks SET stage = 'audio_ready'")
    run.resume()
    assert set(rows(bench.connection)) == {id}


@pytest.mark.parametrize("action", ["backfill", "reset", "prune"])
def test_a_batch_goes_around_locked_rows_and_comes_back_for_them(bench: Bench, action: str) -> None:
    for i in range(4):
        stage = {"backfill": "audio_ready", "reset": "audio_ready", "prune": "aligned"}[action]
        track = bench.track(f"t{i}", stage)
        if action == "reset":
            bench.task(track, "align", "running", **STUCK)
        if action == "prune":
            bench.task(track, "align", "pending")
    plan = getattr(operable(bench.url), f"plan_{action}")(tasks="align")
    with psycopg.connect(bench.url) as other:
        if action == "backfill":  # a worker in the midst of its ensure
            own = "subject_type, subject_id, " if bench.variant == "b" else ""
            values = "'track', 't2', " if bench.variant == "b" else ""
            other.execute(
                f"INSERT INTO audio_tasks ({own}spotify_track_id, task_type) "
                f"VALUES ({values}'t2', 'align')"
            )
        else:
            other.execute("SELECT FROM audio_tasks WHERE spotify_track_id = 't2' FOR UPDATE")
        run = plan.apply(confirm=plan.token)
        other.rollback()
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (3, 1)
    assert list(run.dropped().reason) == ["still locked by another session after 6 turns"]
    again = getattr(operable(bench.url), f"plan_{action}")(tasks="align").apply(max_rows=1)
    assert again.row["rows_done"] == 1


def test_a_row_that_is_unlocked_in_time_is_done_in_a_later_turn(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", 4)
    queue = operable(bench.url)
    plan = queue.plan_backfill()
    other = psycopg.connect(bench.url)
    other.execute("SELECT FROM tracks WHERE spotify_track_id = 't2' FOR UPDATE")
    real = pace.Pace.rest

    def rest(pace: Any, seconds: float) -> None:  # the batch without t2 is committed by now
        other.rollback()
        real(pace, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace.Pace, "rest", rest)
        run = plan.apply(confirm=plan.token)
    other.close()
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (4, 0)
    assert pending(bench, "align") == tracks


def test_pipelines_of_other_names_have_runs_of_their_own(bench: Bench, tmp_path: Path) -> None:
    assert pipeline.load().name == "karaoke"
    file = tmp_path / "other.yaml"
    file.write_text(
        Path("params/pipelines/karaoke.yaml").read_text().replace("name: karaoke", "name: other", 1)
    )
    many(bench, "audio_ready", 3)
    operable(bench.url).plan_backfill().apply(max_rows=3)
    operable(bench.url, file).plan_backfill().apply(max_rows=3)
    found = operable(bench.url).runs()
    assert list(zip(found.run, found.pipeline, found.rows_done, strict=True)) == [
        (2, "other", 0),
        (1, "karaoke", 3),
    ]
