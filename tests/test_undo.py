"""What changes between a plan and its batches, or a run and its undo, is listed and left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import Bench, Fresh
from operating import (
    STUCK,
    Patch,
    edited,
    everything,
    give_rows,
    many,
    operable,
    pending,
    rows,
    work,
)
from queue_insights import demo
from queue_insights.actions import pace, runs
from queue_insights.errors import RunError


@pytest.fixture
def begun(monkeypatch: Patch) -> Callable[[Any], Any]:
    """Start a run as a process that dies before its first batch."""

    def begin(plan: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(runs, "drive", lambda run, fence, pause: run)
            return plan.apply(confirm=plan.token)

    return begin


def test_every_row_is_checked_again_in_its_batch(bench: Bench, begun: Callable[[Any], Any]) -> None:
    stuck = [bench.track(name, "aligned") for name in ("same", "alive", "done", "moved", "gone")]
    give_rows(bench, stuck, "translate", "running", **STUCK)
    ids = dict(bench.sql("SELECT spotify_track_id, id::text FROM audio_tasks"))
    orphan = bench.task(bench.track("came back", "ready"), "clip", "pending")
    missing = [bench.track(f"{name}, no row", "audio_ready") for name in ("same", "moved", "gone")]
    bench.track("has row", "audio_ready")
    queue = operable(bench.url)
    reset, prune, backfill = map(
        begun, (queue.plan_reset(), queue.plan_prune(), queue.plan_backfill())
    )
    own = bench.task("has row", "align", "running", attempts=1)
    change = "UPDATE audio_tasks SET {} WHERE spotify_track_id = '{}'".format
    bench.sql(change("last_attempt_at = now()", "alive"))
    bench.sql(change("status = 'completed'", "done"))
    bench.sql("UPDATE tracks SET stage = 'failed' WHERE spotify_track_id ~ 'moved'")
    bench.sql("UPDATE tracks SET stage = 'enhanced' WHERE spotify_track_id = 'came back'")
    bench.sql("DELETE FROM tracks WHERE spotify_track_id ~ 'gone'")
    before = rows(bench.connection)
    for run in (reset, prune, backfill):
        run.resume()
    after = rows(bench.connection)
    changed = [str(id) for id in after if before.get(id) != after[id]]
    made = bench.sql("SELECT id::text FROM audio_tasks WHERE spotify_track_id = %s", missing[0])
    assert changed == [ids["same"], *made[0]]
    assert {orphan, own} <= after.keys()
    assert reset.dropped().set_index("id").reason.to_dict() == {
        ids["alive"]: "its row is running",
        ids["done"]: "its row is completed",
        ids["moved"]: "its track is at failed",
        ids["gone"]: "it is gone",
    }
    assert prune.dropped().reason.to_list() == ["its track is at enhanced"]
    assert backfill.dropped().set_index("id").reason.to_dict() == {
        "has row": "its row is running",
        "moved, no row": "its track is at failed",
        "gone, no row": "it is gone",
    }
    assert (reset.row["rows_done"], reset.row["rows_dropped"]) == (1, 4)


@pytest.mark.parametrize("action", ["backfill", "reset", "prune"])
def test_a_batch_goes_around_locked_rows_and_comes_back_for_them(bench: Bench, action: str) -> None:
    tracks = work(bench, 4)[action]
    plan = getattr(operable(bench.url), f"plan_{action}")
    with psycopg.connect(bench.url) as other:
        if action == "backfill":  # a worker in the midst of its ensure
            bench.connection = other
            give_rows(bench, tracks[2:3], "align", "pending")
        else:
            lock = "SELECT FROM audio_tasks WHERE spotify_track_id = %s FOR UPDATE"
            other.execute(lock, tracks[2:3])
        run = plan().apply(max_rows=4)
        other.rollback()
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (3, 1)
    assert list(run.dropped().reason) == ["still locked by another session after 6 turns"]
    assert plan().apply(max_rows=1).row["rows_done"] == 1


def test_a_row_that_is_unlocked_in_time_is_done_later(bench: Bench, monkeypatch: Patch) -> None:
    tracks = many(bench, "audio_ready", 4)
    plan = operable(bench.url).plan_backfill()
    with psycopg.connect(bench.url) as other:
        other.execute("SELECT FROM tracks WHERE spotify_track_id = 't2' FOR UPDATE")
        # It rests once the batch without t2 is committed.
        monkeypatch.setattr(pace.Pace, "rest", lambda self, seconds: other.rollback())
        run = plan.apply(confirm=plan.token)
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (4, 0)
    assert pending(bench, "align") == tracks


def test_undo_of_prune_leaves_out_what_has_another_row_or_no_track_by_now(bench: Bench) -> None:
    ids = [bench.task(bench.track(f"t{i}", "aligned"), "align", "pending") for i in range(3)]
    run = operable(bench.url).plan_prune().apply(max_rows=3)
    other = bench.task("t0", "align", "running", attempts=1)
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 't1'")
    run.undo()
    assert set(rows(bench.connection)) == {other, ids[2]}
    assert set(run.kept().id) == {str(ids[0]), str(ids[1])}


def test_what_is_over_or_of_another_pipeline_or_variant_is_refused_and_stays(
    fresh: Fresh, tmp_path: Path
) -> None:
    bench = fresh("a")
    many(bench, "audio_ready", 3)
    queue = operable(bench.url)
    run, other = queue.plan_backfill().apply(max_rows=3), queue.plan_retry().apply(max_rows=0)

    def refused(act: Callable[[], object], why: str) -> None:
        before = everything(bench.connection)
        with pytest.raises(RunError, match=why):
            act()
        assert everything(bench.connection) == before

    refused(run.resume, "run 1 is finished: there is nothing to resume")
    refused(run.stop, "run 1 is finished: there is nothing to stop")
    file = edited(tmp_path, "stuck_after: 30m", "stuck_after: 31m")
    refused(operable(bench.url, file).run(1).undo, "belongs to pipeline 'karaoke' as it was then")
    run.undo()
    for again in (run.undo, run.resume):
        refused(again, "run 1 is undone")
    demo.migrate(bench.connection)
    refused(operable(bench.url).run(other.run).undo, r"variant A.*variant B")


# Values whose hash, taken alone, is that of a null.
CHANGES = {
    "status": "'running'",
    **{"metadata": "'{}'", "error_details": "'null'", "grove_cid": "''", "error_message": "''"},
    **{"last_attempt_at": "'2000-01-01Z'", "next_retry_at": "'infinity'", "attempts": "NULL"},
    **{"processing_duration_ms": "0", "completed_at": "'2000-01-01Z'"},
    **{"created_at": "created_at + interval '1 microsecond'", "score": "0.00"},
    **{"day": "'2000-01-01'", "took": "'0'", "seen": "false", "raw": "''", "tags": "'{}'"},
}


def test_any_change_keeps_a_row_from_being_undone_which_is_listed(bench: Bench) -> None:
    bench.sql(
        "ALTER TABLE audio_tasks ADD score numeric, ADD day date, ADD took interval, "
        "ADD seen boolean, ADD raw bytea, ADD tags text[]"
    )
    many(bench, "audio_ready", len(CHANGES) + 2)
    run = operable(bench.url).plan_backfill().apply(max_rows=99)
    ids = [id for (id,) in bench.sql("SELECT id FROM audio_tasks ORDER BY id")]
    *changed, gone, same = ids
    for id, (column, value) in zip(changed, CHANGES.items(), strict=True):
        bench.sql(f"UPDATE audio_tasks SET {column} = {value} WHERE id = {id}")
    bench.sql("DELETE FROM audio_tasks WHERE id = %s", gone)
    bench.sql("UPDATE audio_tasks SET updated_at = now() WHERE id = %s", same)
    kept = rows(bench.connection)
    del kept[same]
    database = bench.connection.info.dbname
    bench.sql(f"ALTER DATABASE {database} SET timezone = 'Asia/Kolkata'")
    bench.sql(f"ALTER DATABASE {database} SET intervalstyle = 'sql_standard'")
    run.undo()
    assert rows(bench.connection) == kept
    reasons = dict.fromkeys(map(str, changed), "it has changed since: pending")
    reasons[str(changed[0])] = "it has changed since: running"
    assert run.kept().set_index("id").reason.to_dict() == {**reasons, str(gone): "it is gone"}
    assert (run.row["rows_undone"], run.row["rows_kept"]) == (1, len(CHANGES) + 1)
