"""What keeps a read harmless: read-only transactions, one moment, no session left behind."""

import contextlib
import itertools

import pandas as pd
import pytest

from conftest import Bench, tracks_as_view
from processes import until
from queue_insights.errors import DatabaseError
from queue_insights.reads import READS


def test_a_read_cannot_write(bench: Bench) -> None:
    bench.sql("""
        CREATE FUNCTION volatile_write() RETURNS int VOLATILE LANGUAGE sql
        AS $$ INSERT INTO audio_tasks (task_type) VALUES ('align') RETURNING id $$
    """)
    writes = ("DELETE FROM audio_tasks", "SELECT * FROM tracks FOR UPDATE", "CREATE TABLE mine ()")
    writes += ("SELECT nextval('audio_tasks_id_seq')", "SELECT volatile_write()")
    for statement, primary in itertools.product(writes, (False, True)):
        with (
            pytest.raises(DatabaseError, match="read-only transaction"),
            bench.queue.database.read(primary=primary) as moment,
        ):
            moment.connection.exec_driver_sql(statement)


def test_every_read_of_the_queue_is_a_read_only_transaction(bench: Bench) -> None:
    """Of a table that writes when it is read."""
    bench.task(bench.track("track", "aligned"), "align", "failed")
    bench.sql("CREATE SEQUENCE seen")
    tracks_as_view(bench, "CASE WHEN nextval('seen') > 0 THEN stage END")
    for read in READS:
        with pytest.raises(DatabaseError, match=r"nextval.* read-only transaction"):
            getattr(bench.queue, read)(*(["track"] if read == "track" else []))


def test_a_snapshot_sees_one_moment_while_others_commit(bench: Bench) -> None:
    bench.track("early", "audio_ready")
    with bench.queue.snapshot() as moment:
        before = bench.queue.backlog()
        bench.track("late", "audio_ready")
        with bench.queue.snapshot() as inner:
            assert inner is moment
        pd.testing.assert_frame_equal(bench.queue.backlog(), before)
        assert list(bench.queue.missing().spotify_track_id) == ["early"]
        assert bench.queue.as_of == moment.as_of
        assert moment.as_of.utcoffset() is not None
    assert list(bench.queue.missing().spotify_track_id) == ["early", "late"]


SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_whatever_ends_a_snapshot_leaves_no_session(bench: Bench) -> None:
    for error in (KeyboardInterrupt, ZeroDivisionError):
        with contextlib.suppress(error), bench.queue.snapshot():
            bench.queue.backlog()
            assert bench.sql(SESSIONS) == [(1,)]
            raise error
        # A session leaves pg_stat_activity a moment after its client has closed it.
        until(lambda: bench.sql(SESSIONS) == [(0,)], "the session to go")
    bench.track("track", "audio_ready")
    assert bench.queue.backlog().total.sum() == 1  # of now, not of the snapshot
