"""Undo: exact, also of several runs, and what it keeps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Bench
from operating import edited, everything, many, operable, rows
from queue_insights import demo
from queue_insights.errors import RunError


def test_undo_of_prune_leaves_out_what_has_another_row_or_no_track_by_now(bench: Bench) -> None:
    ids = [bench.task(bench.track(f"t{i}", "aligned"), "align", "pending") for i in range(3)]
    run = operable(bench.url).plan_prune().apply(max_rows=3)
    other = bench.task("t0", "align", "running", attempts=1)
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 't1'")
    run.undo()
    assert set(rows(bench.connection)) == {other, ids[2]}
    assert set(run.kept().id) == {str(ids[0]), str(ids[1])}


def test_what_is_over_or_of_another_pipeline_or_variant_is_refused_and_stays(
    fresh: Callable[[str], Bench], tmp_path: Path
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
