"""The reads: what dashboards say, pages and limits, columns and dtypes, all of one track."""

from typing import Any

import pandas as pd
from psycopg import sql

from conftest import STAGE_OF, Bench
from operating import video
from queue_insights.queue import Queue
from queue_insights.reads import STATES

CASES: list[tuple[str, dict[str, Any]]] = [
    *((read, {}) for read in ("backlog", "audit", "missing", "upcoming", "tasks", "orphans")),
    *(("audit", {"sources": True}), ("tasks", {"state": "drifted", "task": "align", "limit": 1})),
]
COUNTS = (*STATES, "total", "eligible", "waiting", "visible", "hidden", "orphans")
ROW_COLUMNS = [
    *("id", "status", "grove_cid", "grove_url", "metadata", "attempts", "max_attempts"),
    *("last_attempt_at", "next_retry_at", "error_message", "error_details"),
    *("processing_duration_ms", "created_at", "updated_at", "completed_at"),
]


def ago(interval: str) -> sql.Composable:
    return sql.SQL("now() - interval {}").format(interval)


def every_state(bench: Bench) -> None:
    """At audio_ready a track in each state that the variant's CHECK allows; two orphans."""
    rows: dict[str, dict[str, Any]] = {
        "pending": {},
        "retryable": {"status": "failed", "attempts": 1},
        "backing_off": {"status": "failed", "attempts": 1, "next_retry_at": "infinity"},
        "running": {"status": "running", "last_attempt_at": ago("1 minute")},
        "stuck": {"status": "running", "last_attempt_at": ago("1 day")},
        "exhausted": {"status": "failed", "attempts": 3, "error_message": "it's 100% :broken\\"},
        "drifted": {"status": "completed", "completed_at": ago("1 hour")},
    }
    if bench.variant == "b":
        rows["skipped"] = {"status": "skipped"}
    for state, columns in rows.items():
        bench.task(bench.track(f"track {state}", "audio_ready"), "align", **columns)
    for i in range(3):
        bench.track(f"track missing {i}", "audio_ready", "A \"title\", with 日本 % : and 'quotes'")
    bench.task(bench.track("track gone on", "ready"), "align")
    bench.task(bench.track("track gone wrong", "failed"), "align", status="failed")


SOURCES = {
    "get_pending_tasks": """
        SELECT count(*) FROM audio_tasks JOIN tracks USING (spotify_track_id)
        WHERE status = 'pending' AND task_type = %(task)s""",
    "task_summary": """
        SELECT coalesce(sum(count), 0) FROM task_summary
        WHERE status = 'pending' AND task_type = %(task)s""",
    "audio_progress": """
        SELECT coalesce(sum(pending), 0) FROM audio_progress
        JOIN tracks USING (spotify_track_id) WHERE stage = %(stage)s""",
}


def test_sources_are_what_each_dashboard_says_and_null_without_it(bench: Bench) -> None:
    every_state(bench)
    video(bench, "align")
    audit = bench.queue.audit(sources=True).set_index("task_type")
    for task, stage in STAGE_OF.items():
        for name, said in SOURCES.items():
            found = bench.connection.execute(said, {"task": task, "stage": stage}).fetchone()
            assert found == (int(audit[name][task]),)
    bench.sql("DROP VIEW task_summary, audio_progress")
    audit = Queue(bench.queue.database, bench.queue.pipeline).audit(sources=True)
    assert audit.get_pending_tasks.sum() > 0
    assert audit[["task_summary", "audio_progress"]].isna().all(axis=None)


def test_pages_and_limits_are_parts_of_the_list_and_of_one_moment(bench: Bench) -> None:
    every_state(bench)
    for read, given in (("missing", {}), ("tasks", {}), ("tasks", {"state": "other"})):
        expected = getattr(bench.queue, read)(**given)
        pages = [*bench.queue.pages(read, size=2, **given)]
        assert [len(page) for page in pages[:-1]] == [2] * ((len(expected) - 1) // 2)
        for page in pages:
            pd.testing.assert_series_equal(page.dtypes, expected.dtypes)
        pd.testing.assert_frame_equal(pd.concat(pages, ignore_index=True), expected)
        for limit in (0, 1, 4):
            first = getattr(bench.queue, read)(**given, limit=limit)
            pd.testing.assert_frame_equal(first, expected.head(limit))
    with bench.queue.snapshot():
        pages_then = bench.queue.pages("missing", size=1)
        next(pages_then)
        bench.track("late", "audio_ready")
        assert len(bench.queue.missing()) == 1 + len([*pages_then]) == 3


def test_a_row_without_a_track_is_an_orphan_without_a_stage(bench: Bench) -> None:
    bench.task(bench.track("vanished", "audio_ready"), "align")
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_fkey")
    bench.sql("DELETE FROM tracks")
    orphans = bench.queue.orphans().set_index("spotify_track_id")
    assert orphans.index.tolist() == ["vanished"]
    assert orphans[["stage", "title"]].isna().all(axis=None)
    assert bench.queue.audit().orphans.tolist() == [0, 1, 0, 0, 0, 0, 0]


def dtype(name: str) -> str:
    if name.endswith(("_at", "_seconds")):
        return "datetime64[us, UTC]" if name.endswith("_at") else "float64"
    if name in ("id", "attempts", "max_attempts", "processing_duration_ms", *SOURCES):
        return "Int64"
    if name in ("metadata", "error_details"):
        return "object"
    return "int64" if name in COUNTS else "str"


def test_frames_have_the_documented_columns_and_dtypes_whether_empty_or_not(bench: Bench) -> None:
    of_track = ["spotify_track_id", "title", "stage", "task_type"]
    for empty in (True, False):
        for read, given in CASES:
            frame = getattr(bench.queue, read)(**given)
            assert frame.dtypes.astype(str).to_dict() == {name: dtype(name) for name in frame}
            if read in ("upcoming", "tasks"):
                assert list(frame) == [*of_track, "state", "arrived_at", *ROW_COLUMNS]
        if empty:
            assert set(bench.queue.audit().verdict) == {"visible"}
            every_state(bench)
    # Python has no date for the infinite time at which it is due.
    assert bench.queue.tasks("backing_off").next_retry_at.isna().tolist() == [True]


def test_a_track_has_its_rows_in_pipeline_order_and_a_state_only_where_it_stands(
    bench: Bench,
) -> None:
    if bench.variant == "a":
        bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_task_type_check")
    for track in ("song", "other", "video translate pending"):
        bench.track(track, "aligned")
    bench.task("song", "trivia", "completed")  # of which the pipeline knows nothing
    bench.task("song", "translate", "failed", attempts=1)
    bench.task("song", "align", "completed", completed_at=ago("0"))
    bench.task("song", "download", "pending")
    bench.task("other", "align", "completed", completed_at=ago("0"))
    frame = bench.queue.track("song")
    assert frame["task_type"].tolist() == ["download", "align", "translate", "trivia"]
    assert frame["status"].tolist() == ["pending", "completed", "failed", "completed"]
    assert frame["state"].fillna("").tolist() == ["", "", "retryable", ""]
    other = bench.queue.track("other")
    assert other["task_type"].tolist() == ["align", "translate"]
    assert other["state"].fillna("").tolist() == ["", "missing"]
    assert other["arrived_at"].iloc[1] == other["completed_at"].iloc[0]
    video(bench, "translate")  # whose row is not that of the track with its id
    assert bench.queue.track("video translate pending")["state"].tolist() == ["missing"]
    listed = bench.queue.tasks().dtypes.to_dict()
    for id in ("song", "nobody", "'; DROP TABLE audio_tasks; --"):  # a value and never SQL
        assert bench.queue.track(id).dtypes.to_dict() == listed
        assert bench.queue.track(id).empty == (id != "song")
