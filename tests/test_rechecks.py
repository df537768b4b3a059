"""What changes between a plan and its batches, and rows that somebody has locked."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from conftest import Bench
from operating import STUCK, give_rows, many, operable, pending, rows
from queue_insights.actions import pace, runs


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Start a run as a process that dies before its first batch."""

    def begin(plan: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(runs, "drive", lambda run, fence, pause: run)
            return plan.apply(confirm=plan.token)

    return begin


def test_every_row_is_checked_again_in_its_batch_and_what_no_longer_qualifies_is_listed(
    bench: Bench, begun: Callable[[Any], Any]
) -> None:
    names = ("same", "alive", "done", "moved", "gone")
    ids = {n: bench.task(bench.track(n, "audio_ready"), "align", "running", **STUCK) for n in names}
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


def test_backfill_leaves_out_tracks_that_got_a_row_or_moved_on_and_prune_those_that_came_back(
    bench: Bench, begun: Callable[[Any], Any]
) -> None:
    for name in ("same", "has row", "moved", "gone"):
        bench.track(name, "audio_ready")
    orphan = bench.task(bench.track("came back", "ready"), "align", "pending")
    queue = operable(bench.url)
    backfill, prune = begun(queue.plan_backfill()), begun(queue.plan_prune())
    own = bench.task("has row", "align", "running", attempts=1)
    bench.sql("UPDATE tracks SET stage = 'failed' WHERE spotify_track_id = 'moved'")
    bench.sql("UPDATE tracks SET stage = 'audio_ready' WHERE spotify_track_id = 'came back'")
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 'gone'")
    backfill.resume()
    prune.resume()
    made = bench.sql("SELECT spotify_track_id FROM audio_tasks WHERE id <> ALL(%s)", [own, orphan])
    assert made == [("same",)]
    assert backfill.dropped().set_index("id").reason.to_dict() == {
        "has row": "its row is running",
        "moved": "its track is at failed",
        "gone": "it is gone",
    }
    assert orphan in rows(bench.connection)
    assert list(prune.dropped().reason) == ["its track is at audio_ready"]


@pytest.mark.parametrize(
    ("action", "stage", "row"),
    [
        ("backfill", "audio_ready", None),
        ("reset", "audio_ready", ("running", STUCK)),
        ("prune", "aligned", ("pending", {})),
    ],
)
def test_a_batch_goes_around_locked_rows_and_comes_back_for_them(
    bench: Bench, action: str, stage: str, row: tuple[str, dict[str, Any]] | None
) -> None:
    for i in range(4):
        track = bench.track(f"t{i}", stage)
        if row is not None:
            bench.task(track, "align", row[0], **row[1])
    plan = getattr(operable(bench.url), f"plan_{action}")
    with psycopg.connect(bench.url) as other:
        if row is None:  # a worker in the midst of its ensure
            bench.connection = other
            give_rows(bench, ["t2"], "align", "pending")
        else:
            other.execute("SELECT FROM audio_tasks WHERE spotify_track_id = 't2' FOR UPDATE")
        run = plan(tasks="align").apply(max_rows=4)
        other.rollback()
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (3, 1)
    assert list(run.dropped().reason) == ["still locked by another session after 6 turns"]
    assert plan(tasks="align").apply(max_rows=1).row["rows_done"] == 1


def test_a_row_that_is_unlocked_in_time_is_done_in_a_later_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = many(bench, "audio_ready", 4)
    plan = operable(bench.url).plan_backfill()
    with psycopg.connect(bench.url) as other:
        other.execute("SELECT FROM tracks WHERE spotify_track_id = 't2' FOR UPDATE")
        # It rests once the batch without t2 is committed.
        monkeypatch.setattr(pace.Pace, "rest", lambda self, seconds: other.rollback())
        run = plan.apply(confirm=plan.token)
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (4, 0)
    assert pending(bench, "align") == tracks
