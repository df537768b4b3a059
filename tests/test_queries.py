"""The reads: the incident, arrival, what must change nothing, hostile names, --sql, snapshots."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from conftest import Bench
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.errors import InputError
from queue_insights.queue import Queue
from queue_insights.sql.frames import fetch, query

READS: dict[str, list[dict[str, Any]]] = {
    "backlog": [{}],
    "audit": [{}, {"sources": True}],
    "missing": [{}, {"task": "align", "limit": 2}],
    "upcoming": [{}, {"task": "align", "limit": 3}],
    "tasks": [{}, {"state": "stuck"}, {"state": "drifted", "task": "align", "limit": 1}],
    "orphans": [{}, {"task": "align", "limit": 1}],
}
CASES = [(read, arguments) for read, all_of in READS.items() for arguments in all_of]
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


def test_fifty_tracks_without_rows_are_missing_and_hidden(bench: Bench) -> None:
    bench.sql("""
        INSERT INTO tracks (spotify_track_id, title, artists, stage)
        SELECT 'track' || i, 'Song', '[]', 'audio_ready' FROM generate_series(1, 50) AS i
    """)
    backlog = bench.queue.backlog().set_index("task_type").loc["align"]
    audit = bench.queue.audit(sources=True).set_index("task_type")
    assert (backlog.total, backlog.missing, backlog.eligible, backlog.waiting) == (50, 50, 50, 50)
    assert backlog.visible == 0
    align = audit.loc["align"]
    assert (align.eligible, align.visible, align.hidden, align.orphans) == (50, 0, 50, 0)
    assert align.verdict == "hidden"
    assert (align.get_pending_tasks, align.task_summary, align.audio_progress) == (0, 0, 0)
    assert set(audit.verdict.drop("align")) == {"visible"}
    assert len(bench.queue.missing("align")) == 50


def test_rows_of_tracks_elsewhere_make_the_verdict_overstated(bench: Bench) -> None:
    bench.task(bench.track("waiting", "audio_ready"), "align")
    assert bench.queue.audit().set_index("task_type").verdict["align"] == "visible"
    bench.task(bench.track("gone", "ready"), "align")
    align = bench.queue.audit().set_index("task_type").loc["align"]
    assert (align.eligible, align.visible, align.orphans) == (1, 2, 1)
    assert align.verdict == "overstated"


def test_sources_are_what_each_dashboard_says(bench: Bench) -> None:
    every_state(bench)
    if bench.variant == "b":
        bench.sql(videos(bench))
    audit = bench.queue.audit(sources=True).set_index("task_type")
    for step in bench.queue.pipeline.steps:
        getpendingtasks = """
            SELECT count(*) FROM audio_tasks k JOIN tracks t USING (spotify_track_id)
            WHERE k.status = 'pending' AND k.task_type = %s
        """
        summary = """
            SELECT coalesce(sum(count), 0) FROM task_summary
            WHERE status = 'pending' AND task_type = %s
        """
        progress = """
            SELECT coalesce(sum(pending), 0) FROM audio_progress
            JOIN tracks USING (spotify_track_id) WHERE stage = %s
        """
        assert audit.get_pending_tasks[step.task] == bench.sql(getpendingtasks, step.task)[0][0]
        assert audit.task_summary[step.task] == bench.sql(summary, step.task)[0][0]
        assert audit.audio_progress[step.task] == bench.sql(progress, step.stage)[0][0]


def test_a_dashboard_view_that_is_absent_says_null(bench: Bench) -> None:
    bench.sql("DROP VIEW task_summary, audio_progress")
    audit = bench.queue.audit(sources=True)
    assert audit.get_pending_tasks.tolist() == [0] * 7
    assert audit.task_summary.isna().all()
    assert audit.audio_progress.isna().all()


def test_video_rows_change_no_figure(fresh: Callable[[str], Bench]) -> None:
    bench = fresh("b")
    every_state(bench)
    found = bench.queue.schema
    with Database(bench.url).write() as connection:  # one transaction: ages stay the same, too

        def frames() -> list[pd.DataFrame]:
            return [
                fetch(connection, query(found, datetime.now(UTC), read, **arguments))
                for read, arguments in CASES
            ]

        before = frames()
        added = connection.execute(sa.text(videos(bench).replace(":", "\\:"))).rowcount
        assert added == 3 * bench.sql("SELECT count(*) FROM tracks")[0][0]
        for (read, arguments), old, new in zip(CASES, before, frames(), strict=True):
            if arguments == {"sources": True}:  # that view counts videos, so it must say so
                old, new = (frame.drop(columns="task_summary") for frame in (old, new))
            pd.testing.assert_frame_equal(old, new, obj=f"{read} {arguments}")
        connection.rollback()


def test_arrival_is_the_previous_completion_else_the_rows_creation_else_the_tracks_update(
    bench: Bench,
) -> None:
    day = "2026-03-0{} 12:00+00".format
    for track in ("came", "made", "bare"):
        bench.track(track, "audio_ready")
        updated(bench, track, day(5))
    bench.task("came", "download", "completed", completed_at=day(1))
    bench.task("came", "align", created_at=day(3))
    bench.task("made", "download", "running", created_at=day(2))
    bench.task("made", "align", created_at=day(4))
    bench.track("first", "lyrics_acquired")
    updated(bench, "first", day(2))
    upcoming = bench.queue.upcoming()
    assert dict(zip(upcoming.spotify_track_id, upcoming.arrived_at, strict=True)) == {
        "came": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "first": datetime(2026, 3, 2, 12, tzinfo=UTC),
        "made": datetime(2026, 3, 4, 12, tzinfo=UTC),
        "bare": datetime(2026, 3, 5, 12, tzinfo=UTC),
    }
    assert list(upcoming.spotify_track_id) == ["came", "first", "made", "bare"]


def test_where_several_tasks_lead_to_a_stage_the_latest_completion_is_the_arrival(
    bench: Bench, tmp_path: Path
) -> None:
    text = Path(pipeline.shipped("params") / "pipelines" / "karaoke.yaml").read_text()
    file = tmp_path / "two.yaml"
    file.write_text(
        text.replace("stage: translated, task: separate", "stage: aligned, task: clip").replace(
            "{stage: enhanced, task: clip}", "{stage: translated, task: separate}"
        )
    )
    queue = Queue(Database(bench.url), pipeline.load(file))
    assert queue.pipeline.previous(queue.pipeline.select("separate")[0]) == ("translate", "clip")
    bench.track("track", "translated")
    bench.task("track", "align", "completed", completed_at="2026-03-09 12:00+00")
    bench.task("track", "translate", "completed", completed_at="2026-03-01 12:00+00")
    bench.task("track", "clip", "completed", completed_at="2026-03-02 12:00+00")
    assert list(queue.missing("separate").arrived_at) == [datetime(2026, 3, 2, 12, tzinfo=UTC)]


def test_equal_arrivals_are_in_order_of_primary_key_and_limits_take_the_first(bench: Bench) -> None:
    for track, day in (("c", 2), ("b", 2), ("d", 1), ("a", 2)):
        bench.track(track, "audio_ready" if track == "c" else "aligned")
        updated(bench, track, f"2026-03-0{day} 12:00+00")
    assert list(bench.queue.missing().spotify_track_id) == ["d", "a", "b", "c"]
    for limit in range(5):
        assert (
            list(bench.queue.upcoming(limit=limit).spotify_track_id) == ["d", "a", "b", "c"][:limit]
        )
    assert list(bench.queue.missing("translate", limit=1).spotify_track_id) == ["d"]


def test_a_track_without_a_stage_is_at_no_step_and_its_rows_are_orphans(bench: Bench) -> None:
    bench.sql("ALTER TABLE tracks ALTER stage DROP NOT NULL")
    bench.task(bench.track("lost", "audio_ready"), "align")
    bench.sql("UPDATE tracks SET stage = NULL")
    assert bench.queue.backlog().total.sum() == 0
    orphans = bench.queue.orphans()
    assert list(orphans.spotify_track_id) == ["lost"]
    assert orphans.stage.isna().all()
    assert bench.queue.audit().orphans.tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_a_row_whose_track_vanished_is_an_orphan(bench: Bench) -> None:
    bench.task(bench.track("vanished", "audio_ready"), "align")
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_fkey")
    bench.sql("DELETE FROM tracks")
    orphans = bench.queue.orphans()
    assert list(orphans.spotify_track_id) == ["vanished"]
    assert orphans.title.isna().all()
    assert bench.queue.audit().orphans.sum() == 1


def test_frames_have_the_documented_columns_and_dtypes_whether_empty_or_not(bench: Bench) -> None:
    counts = dict.fromkeys(
        [
            *("total", "missing", "pending", "retryable", "backing_off", "running", "stuck"),
            *("exhausted", "drifted", "skipped", "blocked", "other", "eligible", "waiting"),
            "visible",
        ],
        "int64",
    )
    labels = {"stage": "str", "task_type": "str"}
    of_track = {"spotify_track_id": "str", "title": "str", **labels}
    row = dict.fromkeys(ROW_COLUMNS, "str") | {
        **dict.fromkeys(["id", "attempts", "max_attempts", "processing_duration_ms"], "Int64"),
        **dict.fromkeys(["metadata", "error_details"], "object"),
        **{name: "datetime64[us, UTC]" for name in ROW_COLUMNS if name.endswith("_at")},
    }
    time = {"arrived_at": "datetime64[us, UTC]"}
    state = {"state": "str"}
    audit = {**labels, **dict.fromkeys(["eligible", "visible", "hidden", "orphans"], "int64")}
    sources = dict.fromkeys(["get_pending_tasks", "task_summary", "audio_progress"], "Int64")
    expected = {
        "backlog": {**labels, **counts, "oldest_waiting_seconds": "float64"},
        "audit": {**audit, "verdict": "str"},
        "missing": {**of_track, **time},
        "upcoming": {**of_track, **state, **time, **row},
        "tasks": {**of_track, **state, **time, **row},
        "orphans": {**of_track, **time, **row},
    }

    def check() -> None:
        for read, arguments in CASES:
            frame = getattr(bench.queue, read)(**arguments)
            columns = expected[read] | (sources if arguments == {"sources": True} else {})
            assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == columns
            assert list(frame.columns) == list(columns)

    check()
    every_state(bench)
    check()
    assert len(bench.queue.tasks()) >= 10


def test_empty_tables_give_all_steps_and_no_tracks(bench: Bench) -> None:
    backlog, audit = bench.queue.backlog(), bench.queue.audit()
    assert list(backlog.task_type) == list(audit.task_type)
    assert list(audit.task_type) == [
        *("download", "align", "translate", "separate", "segment", "enhance", "clip")
    ]
    assert backlog.total.sum() == backlog.visible.sum() == 0
    assert backlog.oldest_waiting_seconds.isna().all()
    assert set(audit.verdict) == {"visible"}
    for read in ("missing", "upcoming", "tasks", "orphans"):
        assert getattr(bench.queue, read)().empty


def test_times_that_python_has_no_date_for_read_as_null(bench: Bench) -> None:
    bench.task(bench.track("later", "audio_ready"), "align", next_retry_at="infinity")
    tasks = bench.queue.tasks()
    assert tasks.state.tolist() == ["backing_off"]
    assert tasks.next_retry_at.isna().all()


@pytest.mark.parametrize("time", ["infinity", "-infinity"])
def test_an_arrival_at_infinity_is_no_age(bench: Bench, time: str) -> None:
    """Before Postgres 17 there is no difference to an infinite time: the read would fail."""
    for track, arrived in (("odd", time), ("even", "2026-03-01 12:00Z")):
        bench.task(bench.track(track, "audio_ready"), "align", created_at=arrived)
    with bench.queue.snapshot() as moment:
        oldest = bench.queue.backlog().oldest_waiting_seconds[1]
    waited = moment.as_of - datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert oldest == pytest.approx(waited.total_seconds())
    assert len(bench.queue.upcoming("align")) == 2


def plain(value: Any) -> Any:
    return None if not isinstance(value, dict | list) and pd.isna(value) else value


@pytest.mark.parametrize(("read", "arguments"), CASES, ids=str)
def test_printed_sql_gives_the_same_rows_as_the_frame(
    bench: Bench, read: str, arguments: dict[str, Any]
) -> None:
    every_state(bench)
    with bench.queue.snapshot() as moment:  # so that ages are taken at the same now()
        frame = getattr(bench.queue, read)(**arguments)
        text = bench.queue._query(read, **arguments).sql
        driver = moment.connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        cursor = driver.execute(text)
        rows = cursor.fetchall()
    assert [column.name for column in cursor.description or ()] == list(frame.columns)
    assert len(frame) > 0
    values = zip(*(frame[name].astype(object) for name in frame), strict=True)
    assert [tuple(map(plain, row)) for row in values] == rows


def test_a_hostile_argument_is_refused_or_a_value(bench: Bench) -> None:
    every_state(bench)
    attack = "align'; DROP TABLE audio_tasks; --"
    for read in (bench.queue.missing, bench.queue.upcoming, bench.queue.tasks, bench.queue.orphans):
        with pytest.raises(InputError, match="unknown task"):
            read(task=attack)
    with pytest.raises(InputError, match="unknown state"):
        bench.queue.tasks(state=attack)
