"""``Queue.track``: everything about one track, whatever else is in the tables."""

import pytest
from psycopg import sql

from conftest import Bench

NOW = sql.SQL("now()")


@pytest.fixture
def song(bench: Bench) -> Bench:
    bench.track("song", "aligned")
    bench.track("other", "aligned")
    bench.task("song", "translate", "failed", attempts=1)
    bench.task("song", "align", "completed", completed_at=NOW)
    bench.task("song", "download", "pending")
    bench.task("other", "translate", "running")
    return bench


def test_its_rows_come_in_pipeline_order_with_the_state_only_where_it_stands(song: Bench) -> None:
    frame = song.queue.track("song")
    assert frame["task_type"].tolist() == ["download", "align", "translate"]
    assert frame["status"].tolist() == ["pending", "completed", "failed"]
    assert frame["state"].fillna("").tolist() == ["", "", "retryable"]
    assert set(frame["spotify_track_id"]) == {"song"}
    assert set(frame["stage"]) == {"aligned"}


def test_a_step_without_a_row_is_there_as_missing(bench: Bench) -> None:
    bench.track("song", "audio_ready")
    bench.task("song", "download", "completed", completed_at=NOW)
    frame = bench.queue.track("song")
    assert frame[["task_type", "state"]].fillna("").to_numpy().tolist() == [
        ["download", ""],
        ["align", "missing"],
    ]
    assert frame["arrived_at"].iloc[1] == frame["completed_at"].iloc[0]


def test_columns_and_dtypes_are_those_of_the_other_lists(song: Bench) -> None:
    listed = song.queue.tasks()
    for frame in (song.queue.track("song"), song.queue.track("nobody")):
        assert frame.dtypes.to_dict() == listed.dtypes.to_dict()
    assert song.queue.track("nobody").empty


def test_rows_of_tasks_outside_the_pipeline_come_last(bench: Bench) -> None:
    if bench.variant == "a":
        bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_task_type_check")
    bench.track("song", "aligned")
    bench.task("song", "trivia", "completed")
    frame = bench.queue.track("song")
    assert frame["task_type"].tolist() == ["translate", "trivia"]


def test_rows_about_a_video_of_the_same_id_are_not_its(fresh) -> None:  # type: ignore[no-untyped-def]
    bench = fresh("b")
    bench.track("song", "aligned")
    bench.sql(
        "INSERT INTO audio_tasks (subject_type, subject_id, task_type) "
        "VALUES ('tiktok_video', 'song', 'translate')"
    )
    assert bench.queue.track("song")["state"].tolist() == ["missing"]


def test_an_id_is_a_value_and_never_sql(song: Bench) -> None:
    assert song.queue.track("'; DROP TABLE audio_tasks; --").empty
    assert len(song.queue.track("song")) == 3
