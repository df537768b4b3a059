"""Batches: what the ledger says of them, which troubles they outlive, how large they are."""

import logging
import os
import platform
from collections.abc import Callable

import pandas as pd
import pytest

from conftest import Bench
from operating import ledger_agrees, many, operable, pending, small_batches
from queue_insights.actions import ledger, pace, progress
from queue_insights.errors import DatabaseError


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    """One variant: runs are alike in both."""
    return fresh("b")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, chunk=2, first=1, largest=1)


def test_the_ledger_says_who_did_what_when_and_how_far_it_got(bench: Bench) -> None:
    many(bench, "audio_ready", 5)
    queue = operable(bench.url)
    assert len(queue.runs()) == 0
    before = queue.as_of
    run = queue.plan_backfill(tasks="align", limit=4, older_than="1m").apply(max_rows=4)
    found = queue.runs()
    assert list(found.columns)[:2] == ["run", "action"]
    entry = found.iloc[0]
    assert (entry.run, entry.action, entry.state, entry.pipeline) == (
        *(run.run, "backfill", "finished", "karaoke"),
    )
    assert (entry.host, entry.pid, entry.role) == (platform.node(), os.getpid(), "postgres")
    assert entry.parameters["tasks"] == ["align"]
    assert (entry.parameters["limit"], entry.parameters["older_than"]) == (4, 60.0)
    assert entry.planned == {"align": 4}
    assert (entry.rows_planned, entry.rows_done, entry.rows_dropped) == (4, 4, 0)
    assert before <= entry.started_at <= entry.last_batch_at <= entry.ended_at <= queue.as_of
    assert pd.isna(entry.error)
    assert (run.row["fingerprint"], run.row["variant"]) == (queue.pipeline.fingerprint, "b")
    ledger_agrees(bench, run.run)


def test_the_ledger_may_be_created_by_a_dba_first_and_twice(bench: Bench) -> None:
    bench.connection.execute(ledger.ddl())
    bench.connection.execute(ledger.ddl())
    many(bench, "audio_ready", 1)
    assert operable(bench.url).plan_backfill().apply(max_rows=1).run == 1


def test_a_batch_that_fails_is_recorded_with_its_error_and_resumed_after_the_cause_is_gone(
    bench: Bench,
) -> None:
    tracks = many(bench, "audio_ready", 9)
    bench.sql(
        f"ALTER TABLE audio_tasks ADD CONSTRAINT odd CHECK (spotify_track_id <> '{tracks[5]}')"
    )
    queue = operable(bench.url)
    plan = queue.plan_backfill()
    with pytest.raises(DatabaseError, match=r'"odd".*run 1 has failed.*resume 1') as error:
        plan.apply(confirm=plan.token, pause=0)
    assert "\n" not in str(error.value)
    run = queue.run(1)
    assert (run.state, run.row["rows_done"]) == ("failed", 4)
    assert '"odd"' in run.row["error"]
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT odd")
    assert run.resume(pause=0).state == "finished"
    assert (run.row["error"], pending(bench, "align")) == (None, tracks)


@pytest.mark.parametrize("trouble", ["lock timeout", "lost connection", "deadlock"])
def test_passing_troubles_are_outlived(
    bench: Bench, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = many(bench, "audio_ready", 9)
    bench.sql("CREATE TABLE trouble (left_over int); INSERT INTO trouble VALUES (2)")
    bench.connection.execute("""
        CREATE FUNCTION make_trouble() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('application_name') = 'queue-insights' AND
               nextval('tries') BETWEEN 3 AND 5 THEN
                IF TG_ARGV[0] = 'deadlock' THEN
                    RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
                ELSIF TG_ARGV[0] = 'lock timeout' THEN
                    RAISE EXCEPTION 'lock timeout' USING ERRCODE = '55P03';
                END IF;
                PERFORM pg_terminate_backend(pg_backend_pid());
            END IF;
            RETURN NULL;
        END $$;
        CREATE SEQUENCE tries;
    """)
    bench.sql(
        "CREATE TRIGGER trouble BEFORE INSERT ON audio_tasks FOR EACH STATEMENT "
        f"EXECUTE FUNCTION make_trouble('{trouble}')"
    )
    run = operable(bench.url).plan_backfill().apply(max_rows=9, pause=0)
    assert run.state == "finished"
    assert bench.sql("SELECT last_value > 5 FROM tries") == [(True,)]
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)


def test_batches_shrink_on_timeouts_and_grow_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST", 16)
    monkeypatch.setattr(pace, "LARGEST", 64)
    monkeypatch.setattr(pace.Pace, "rest", lambda self, seconds: None)
    speed = pace.Pace(0)
    speed.failed(0)
    speed.failed(1)
    assert speed.chunks == 4
    for _ in range(5):
        speed.took(0.001, 4)
    assert speed.chunks == 64
    speed.took(60.0, 64)
    assert speed.chunks == 32


def test_without_a_terminal_progress_is_plain_lines(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    many(bench, "audio_ready", 6)
    with caplog.at_level(logging.INFO, "queue_insights"):
        operable(bench.url).plan_backfill().apply(max_rows=6, pause=0)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert lines[0].startswith("backfill (run 1): 2 of 6 rows, ")
    assert "rows/s" in lines[0]
    assert "s left" in lines[0]
    assert lines[-1].startswith("backfill (run 1): 6 of 6 rows, ")
