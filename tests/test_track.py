"""``Queue.track``: everything about one track, whatever else is in the tables."""

from psycopg import sql

from conftest import Bench

NOW = sql.SQL("now()")


def test_a_track_has_its_rows_in_pipeline_order_and_a_state_only_where_it_stands(
    bench: Bench,
) -> None:
    if bench.variant == "a":
        bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_task_type_check")
    for track in ("song", "other"):
        bench.track(track, "aligned")
    bench.task("song", "trivia", "completed")  # of which the pipeline knows nothing
    bench.task("song", "translate", "failed", attempts=1)
    bench.task("song", "align", "completed", completed_at=NOW)
    bench.task("song", "download", "pending")
    bench.task("other", "translate", "running")
    frame = bench.queue.track("song")
    assert frame["task_type"].tolist() == ["download", "align", "translate", "trivia"]
    assert frame["status"].tolist() == ["pending", "completed", "failed", "completed"]
    assert frame["state"].fillna("").tolist() == ["", "", "retryable", ""]
    assert set(frame["spotify_track_id"]) == {"song"}
    assert set(frame["stage"]) == {"aligned"}
    listed = bench.queue.tasks().dtypes.to_dict()
    for id in ("song", "nobody", "'; DROP TABLE audio_tasks; --"):  # a value and never SQL
        assert bench.queue.track(id).dtypes.to_dict() == listed
        assert bench.queue.track(id).empty == (id != "song")


def test_a_step_without_a_row_is_there_as_missing(bench: Bench) -> None:
    """A video's row of the same id is not the track's."""
    bench.track("song", "audio_ready")
    bench.task("song", "download", "completed", completed_at=NOW)
    if bench.variant == "b":
        bench.sql(
            "INSERT INTO audio_tasks (subject_type, subject_id, task_type) "
            "VALUES ('tiktok_video', 'song', 'align')"
        )
    frame = bench.queue.track("song")
    assert frame["task_type"].tolist() == ["download", "align"]
    assert frame["state"].fillna("").tolist() == ["", "missing"]
    assert frame["arrived_at"].iloc[1] == frame["completed_at"].iloc[0]
