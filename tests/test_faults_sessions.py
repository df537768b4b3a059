"""Faults in a session: its connection is cut, it is slow, somebody has locked its tables. Each is a
bounded wait and one clear line; nothing is half done; and all goes on where the fault has gone.

A read whose connection is cut is in test_database; what troubles do to batches, whether they pass
or last, is in test_batches; DDL beside a locked table in test_trigger_install and test_views.
"""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from conftest import Bench
from faults import READS, SLOW, asleep, command, failure
from operating import WORK, everything, ledger_agrees, many, operable, pending, small_batches
from processes import SLEEPS, children
from queue_insights.actions import runs
from queue_insights.database import TIMEOUT
from queue_insights.errors import DatabaseError

LOCK = "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE"


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    """One variant: faults are alike in both. There is work waiting."""
    bench = fresh("b")
    many(bench, "audio_ready", 6)
    return bench


def test_a_start_whose_connection_is_cut_has_started_nothing(bench: Bench) -> None:
    plan = operable(bench.url).plan_backfill()
    assert plan.token
    before = everything(bench.connection)
    bench.connection.execute(SLOW)
    with children() as start:
        runner = start(lambda: plan.apply(confirm=plan.token, pause=0).state)
        asleep(bench)
        bench.sql(f"SELECT pg_terminate_backend(pid) FROM ({SLEEPS}) AS found")
        result = runner.result()
    assert result["error"] == "DatabaseError"
    (line,) = result["text"].splitlines()
    assert "terminating connection due to administrator command" in line
    bench.sql("DROP VIEW tracks; ALTER TABLE tracks_table RENAME TO tracks")
    assert everything(bench.connection) == before
    assert plan.apply(confirm=plan.token, pause=0).row["rows_done"] == 6


@pytest.fixture
def locker(bench: Bench) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(bench.url) as connection:
        yield connection


@pytest.mark.proof
def test_what_reads_a_locked_table_ends_at_the_timeout(
    bench: Bench, locker: psycopg.Connection[Any]
) -> None:
    for name in (*READS, *WORK, "views verify", "trigger verify"):
        locker.execute(LOCK.format("tracks, audio_tasks"))
        line = failure(command(bench.url, *name.split(), **{TIMEOUT: "0.1s"}))
        assert "statement timeout (at most 0.1 s); set QUEUE_INSIGHTS_STATEMENT_TIMEOUT=5m" in line
        assert "wait for whoever has locked the table" in line
        locker.rollback()
        assert command(bench.url, *name.split(), **{TIMEOUT: "60s"}).exit_code in (0, 3)


@pytest.mark.parametrize("table", ["tracks", "audio_tasks"])
def test_a_run_whose_table_is_locked_under_it_fails_after_bounded_tries_and_is_resumed(
    bench: Bench, table: str, locker: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch, chunk=2, first=1, largest=1)
    monkeypatch.setattr(runs, "RETRIES", 2)
    queue, settle = operable(bench.url), runs.Loop.settle
    tracks = list(queue.missing().spotify_track_id)

    def lock_after_one(loop: runs.Loop) -> int | None:
        done = settle(loop)
        locker.execute(LOCK.format(table))
        return done

    plan = queue.plan_backfill()
    monkeypatch.setattr(runs.Loop, "settle", lock_after_one)
    with pytest.raises(DatabaseError) as error:
        plan.apply(confirm=plan.token, pause=0)
    monkeypatch.setattr(runs.Loop, "settle", settle)
    locker.rollback()
    (line,) = str(error.value).splitlines()
    assert "somebody holds a lock" in line
    assert "run 1 has failed: go on with it by `queue-insights resume 1`" in line
    run = queue.run(1)
    assert (run.state, run.row["rows_done"]) == ("failed", 2)
    assert pending(bench, "align") == tracks[:2]
    assert run.resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)
