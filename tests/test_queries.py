"""The reads: the incident, arrival, what must change nothing, columns and dtypes."""

from typing import Any

import pandas as pd
from psycopg import sql

from conftest import STAGE_OF, TASKS, Bench
from queue_insights.queue import Queue
from queue_insights.reads import STATES

CASES: list[tuple[str, dict[str, Any]]] = [
    *((read, {}) for read in ("backlog", "audit", "missing", "upcoming", "tasks", "orphans")),
    *(("audit", {"sources": True}), ("missing", {"task": "align", "limit": 2})),
    *(("upcoming", {"task": "align", "limit": 3}), ("tasks", {"state": "stuck"})),
    *(("tasks", {"state": "drifted", "task": "align", "limit": 1}),),
    *(("orphans", {"task": "align", "limit": 1}),),
]
ROW_COLUMNS = [
    *("id", "status", "grove_cid", "grove_url", "metadata", "attempts", "max_attempts"),
    *("last_attempt_at", "next_retry_at", "error_message", "error_details"),
    *("processing_duration_ms", "created_at", "updated_at", "completed_at"),
]


def ago(interval: str) -> sql.Composable:
    return sql.SQL("now() - interval {}").format(interval)


def updated(bench: Bench, track: str, time: str) -> None:
    """Set a track's updated_at, which a trigger would set to now()."""
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER USER")
    bench.sql("UPDATE tracks SET updated_at = %s WHERE spotify_track_id = %s", time, track)
    bench.sql("ALTER TABLE tracks ENABLE TRIGGER USER")


def every_state(bench: Bench) -> None:
    """At audio_ready one track in each state that the variant's CHECK allows; two orphans."""
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


def videos(bench: Bench) -> str:
    """SQL that gives every track's id to a video too, with rows of the same task types."""
    assert bench.variant == "b"
    return """
        INSERT INTO audio_tasks (subject_type, subject_id, task_type, status, completed_at)
        SELECT 'tiktok_video', spotify_track_id, task_type, status, now() + interval '1 day'
        FROM tracks, unnest(ARRAY['download', 'align', 'translate']) AS task_type,
             LATERAL (SELECT (ARRAY['pending', 'failed', 'completed', 'running'])
                             [1 + abs(hashtext(spotify_track_id || task_type)) % 4]) AS s (status)
    """


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
    if bench.variant == "b":
        bench.sql(videos(bench))
    audit = bench.queue.audit(sources=True).set_index("task_type")
    for task, stage in STAGE_OF.items():
        for name, said in SOURCES.items():
            found = bench.connection.execute(said, {"task": task, "stage": stage}).fetchone()
            assert found == (int(audit[name][task]),)
    bench.sql("DROP VIEW task_summary, audio_progress")
    audit = Queue(bench.queue.database, bench.queue.pipeline).audit(sources=True)
    assert audit.get_pending_tasks.sum() > 0
    assert audit[["task_summary", "audio_progress"]].isna().all(axis=None)


def test_equal_arrivals_are_in_order_of_primary_key_and_limits_take_the_first(bench: Bench) -> None:
    for track, day in (("c", 2), ("b", 2), ("d", 1), ("a", 2)):
        bench.track(track, "audio_ready" if track == "c" else "aligned")
        updated(bench, track, f"2026-03-0{day} 12:00+00")
    assert list(bench.queue.missing().spotify_track_id) == ["d", "a", "b", "c"]
    for limit in range(5):
        found = bench.queue.upcoming(limit=limit).spotify_track_id
        assert list(found) == ["d", "a", "b", "c"][:limit]
    assert list(bench.queue.missing("translate", limit=1).spotify_track_id) == ["d"]


def test_pages_are_the_list_in_parts_and_of_one_moment(bench: Bench) -> None:
    every_state(bench)
    for read, given in (("missing", {}), ("tasks", {}), ("tasks", {"state": "other"})):
        expected = getattr(bench.queue, read)(**given)
        pages = [*bench.queue.pages(read, size=2, **given)]
        sizes = [2] * (len(expected) // 2) + [1] * (len(expected) % 2)
        assert [len(page) for page in pages] == (sizes or [0])
        for page in pages:
            pd.testing.assert_series_equal(page.dtypes, expected.dtypes)
        together = pd.concat(pages, ignore_index=True)
        pd.testing.assert_frame_equal(together, expected)
    with bench.queue.snapshot():
        pages_then = bench.queue.pages("missing", size=1)
        next(pages_then)
        bench.track("late", "audio_ready")
        assert len(bench.queue.missing()) == 1 + len([*pages_then]) == 3
    begun = bench.queue.pages("missing", size=1)
    next(begun)
    bench.track("later", "audio_ready")
    assert len(bench.queue.missing()) == 5  # whoever stops halfway holds nobody else up
    assert len([*begun]) == 3


def test_a_track_without_a_stage_is_at_no_step_and_rows_without_a_track_are_orphans(
    bench: Bench,
) -> None:
    bench.sql("ALTER TABLE tracks ALTER stage DROP NOT NULL")
    bench.task(bench.track("lost", "audio_ready"), "align")
    bench.sql("UPDATE tracks SET stage = NULL")
    bench.task(bench.track("vanished", "audio_ready"), "align")
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_fkey")
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 'vanished'")
    assert bench.queue.backlog().total.sum() == 0
    orphans = bench.queue.orphans().set_index("spotify_track_id")
    assert sorted(orphans.index) == ["lost", "vanished"]
    assert orphans.stage.isna().all()
    assert orphans.title.isna().to_dict() == {"lost": False, "vanished": True}
    assert bench.queue.audit().orphans.tolist() == [0, 2, 0, 0, 0, 0, 0]


def test_frames_have_the_documented_columns_and_dtypes_whether_empty_or_not(bench: Bench) -> None:
    counts = dict.fromkeys(["total", *STATES, "eligible", "waiting", "visible"], "int64")
    labels, time = {"stage": "str", "task_type": "str"}, {"arrived_at": "datetime64[us, UTC]"}
    of_track = {"spotify_track_id": "str", "title": "str", **labels}
    row = dict.fromkeys(ROW_COLUMNS, "str") | {
        **dict.fromkeys(["id", "attempts", "max_attempts", "processing_duration_ms"], "Int64"),
        **dict.fromkeys(["metadata", "error_details"], "object"),
        **{name: "datetime64[us, UTC]" for name in ROW_COLUMNS if name.endswith("_at")},
    }
    audit = {**labels, **dict.fromkeys(["eligible", "visible", "hidden", "orphans"], "int64")}
    of_row = {**of_track, "state": "str", **time, **row}
    expected = {
        "backlog": {**labels, **counts, "oldest_waiting_seconds": "float64"},
        "audit": {**audit, "verdict": "str"},
        "missing": {**of_track, **time},
        **{"upcoming": of_row, "tasks": of_row, "orphans": {**of_track, **time, **row}},
    }

    def check() -> None:
        for read, arguments in CASES:
            frame = getattr(bench.queue, read)(**arguments)
            sources = dict.fromkeys(SOURCES, "Int64") if "sources" in arguments else {}
            columns = expected[read] | sources
            assert list(frame.dtypes.astype(str).items()) == list(columns.items())

    check()
    backlog, audit = bench.queue.backlog(), bench.queue.audit()
    assert list(backlog.task_type) == list(audit.task_type) == TASKS
    assert backlog.total.sum() == backlog.visible.sum() == 0
    assert backlog.oldest_waiting_seconds.isna().all()
    assert set(audit.verdict) == {"visible"}
    every_state(bench)
    check()
    tasks = bench.queue.tasks()
    assert len(tasks) >= 10
    # Python has no date for the infinite time at which it is due.
    assert tasks.next_retry_at[tasks.state == "backing_off"].isna().tolist() == [True]
