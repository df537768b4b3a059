"""Batches: what the ledger says of them, which troubles they outlive, how large they are."""

import logging
import os
import platform
from pathlib import Path

import pandas as pd
import pytest

from conftest import Bench, Fresh
from operating import edited, ledger_agrees, many, operable, pending, small_batches
from queue_insights.actions import ledger, pace, runs
from queue_insights.errors import DatabaseError


@pytest.fixture
def bench(fresh: Fresh) -> Bench:
    """One variant: runs are alike in both."""
    return fresh("b")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, chunk=2, first=1, largest=1)


def test_the_ledger_says_who_did_what_when_and_how_far_it_got_and_plain_lines_do_meanwhile(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "EVERY", 0.0)
    many(bench, "audio_ready", 5)
    queue = operable(bench.url)
    assert len(queue.runs()) == 0
    for _ in range(2):
        bench.connection.execute(ledger.ddl())  # as a DBA may do first, even twice
    before = queue.as_of
    with caplog.at_level(logging.INFO, "queue_insights"):
        run = queue.plan_backfill(tasks="align", limit=4, older_than="1m").apply(max_rows=4)
    first, second, *_, last = [line for line in caplog.messages if "rows/s" in line]
    assert first.startswith("backfill (run 1): 0 of 4 rows, ")
    assert second.startswith("backfill (run 1): 2 of 4 rows, ")
    assert second.endswith(" left")
    assert last.startswith("backfill (run 1): 4 of 4 rows, ")
    found = queue.runs()
    assert list(found.columns)[:2] == ["run", "action"]
    entry = found.iloc[0]
    names = ["run", "action", "state", "pipeline", "host", "pid", "role"]
    who = (platform.node(), os.getpid(), "postgres")
    assert [*entry[names]] == [run.run, "backfill", "finished", "karaoke", *who]
    assert entry.parameters["tasks"] == ["align"]
    assert (entry.parameters["limit"], entry.parameters["older_than"]) == (4, 60.0)
    assert entry.planned == {"align": 4}
    assert (entry.rows_planned, entry.rows_done, entry.rows_dropped) == (4, 4, 0)
    assert before <= entry.started_at <= entry.last_batch_at <= entry.ended_at <= queue.as_of
    assert pd.isna(entry.error)
    assert (run.row["fingerprint"], run.row["variant"]) == (queue.pipeline.fingerprint, "b")
    ledger_agrees(bench, run.run)


def test_pipelines_of_other_names_have_runs_of_their_own(bench: Bench, tmp_path: Path) -> None:
    other = operable(bench.url, edited(tmp_path, "name: karaoke", "name: other"))
    many(bench, "audio_ready", 3)
    operable(bench.url).plan_backfill().apply(max_rows=3)
    bench.sql("UPDATE queue_insights.runs SET state = 'running'")
    other.plan_backfill().apply(max_rows=3)
    found = other.runs()[["run", "pipeline", "rows_done"]].values.tolist()
    assert found == [[2, "other", 0], [1, "karaoke", 3]]


def in_trouble(bench: Bench, how: str, tries: str) -> None:
    """Let those of our inserts that are in the range *tries* fail."""
    what = {
        "lost connection": "PERFORM pg_terminate_backend(pg_backend_pid())",
        "deadlock": "RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'",
        "lock timeout": "RAISE EXCEPTION 'lock timeout' USING ERRCODE = '55P03'",
        "full disk": "RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'",
        "constraint": "RAISE EXCEPTION 'violates \"odd\"' USING ERRCODE = '23514'",
    }[how]
    bench.connection.execute(f"""
        CREATE SEQUENCE tries;
        CREATE FUNCTION make_trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF current_setting('application_name') = 'queue-insights' AND
                int8range('{tries}') @> nextval('tries') THEN {what}; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER trouble BEFORE INSERT ON audio_tasks FOR EACH STATEMENT
            EXECUTE FUNCTION make_trouble();
    """)


@pytest.mark.parametrize("trouble", ["lock timeout", "lost connection", "deadlock"])
def test_passing_troubles_are_outlived(bench: Bench, trouble: str) -> None:
    tracks = many(bench, "audio_ready", 9)
    in_trouble(bench, trouble, "[3,5]")
    run = operable(bench.url).plan_backfill().apply(max_rows=9, pause=0)
    assert run.state == "finished"
    assert bench.sql("SELECT last_value > 5 FROM tries") == [(True,)]
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)


@pytest.mark.parametrize(
    ("trouble", "tries", "says"),
    [
        ("lost connection", 3, "terminating connection"),
        ("full disk", 1, "the server needs room on its disk first"),
        *(("lock timeout", 3, "somebody holds a lock"), ("constraint", 1, '"odd"')),
    ],
)
def test_lasting_ones_fail_the_run_in_a_line_after_bounded_tries_and_it_is_resumed_without_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: str, tries: int, says: str
) -> None:
    monkeypatch.setattr(runs, "RETRIES", 3)
    monkeypatch.setattr(pace.Pace, "rest", lambda self, seconds: None)
    tracks = many(bench, "audio_ready", 9)
    in_trouble(bench, trouble, "[3,]")
    plan = operable(bench.url).plan_backfill()
    with pytest.raises(DatabaseError) as error:
        plan.apply(confirm=plan.token, pause=0)
    (line,) = str(error.value).splitlines()
    assert says in line
    assert "run 1 has failed: go on with it by `queue-insights resume 1`" in line
    assert bench.sql("SELECT last_value FROM tries") == [(2 + tries,)]
    run = operable(bench.url).run(1)
    assert (run.state, run.row["rows_done"]) == ("failed", 4)
    assert says in run.row["error"]
    assert pending(bench, "align") == tracks[:4]
    bench.sql("DROP TRIGGER trouble ON audio_tasks")
    assert run.resume(pause=0).state == "finished"
    assert (run.row["error"], pending(bench, "align")) == (None, tracks)
    ledger_agrees(bench, 1)


def test_batches_shrink_on_timeouts_and_grow_again(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, chunk=2, first=16, largest=64)
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
