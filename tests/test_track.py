"""``Queue.track``: everything about one track, whatever else is in the tables."""

from psycopg import sql

from conftest import Bench
from operating import video

NOW = sql.SQL("now()")


def test_a_track_has_its_rows_in_pipeline_order_and_a_state_only_where_it_stands(
    bench: Bench,
) -> None:
    if bench.variant == "a":
        bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_task_type_check")
    for track in ("song", "other", "video translate pending"):
        bench.track(track, "aligned")
    bench.task("song", "trivia", "completed")  # of which the pipeline knows nothing
    bench.task("song", "translate", "failed", attempts=1)
    bench.task("song", "align", "completed", completed_at=NOW)
    bench.task("song", "download", "pending")
    bench.task("other", "align", "completed", completed_at=NOW)
    frame = bench.queue.track("song")
    assert frame["task_type"].tolist() == ["download", "align", "translate", "trivia"]
    assert frame["status"].tolist() == ["pending", "completed", "failed", "completed"]
    assert frame["state"].fillna("").tolist() == ["", "", "retryable", ""]
    assert set(frame["spotify_track_id"]) == {"song"}
    assert set(frame["stage"]) == {"aligned"}
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
