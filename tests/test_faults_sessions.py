"""Faults in a session: its connection is cut, it is slow, somebody has locked its tables. Each is a
bounded wait and one clear line; nothing is half done; and all goes on where the fault has gone.
"""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from conftest import Bench
from faults import ACTIONS, MINE, READS, SLEEPS, SLOW, asleep, command, failure
from operating import everything, ledger_agrees, many, operable, pending, rows
from processes import children
from queue_insights.actions import pace, runs
from queue_insights.database import TIMEOUT, Database
from queue_insights.ddl import migration, trigger, views
from queue_insights.errors import DatabaseError


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    """One variant: faults are alike in both."""
    return fresh("b")


# --- connections that are cut -------------------------------------------------------------------


def test_a_read_whose_connection_is_cut_in_the_middle_is_a_line(bench: Bench) -> None:
    many(bench, "audio_ready", 3)
    bench.connection.execute(SLOW)
    with children() as start:
        reader = start(lambda: failure(command(bench.url, "upcoming", "--format", "json")))
        asleep(bench)
        bench.sql(f"SELECT pg_terminate_backend(pid) FROM ({SLEEPS}) AS found")
        line = reader.result()["value"]
    assert "terminating connection due to administrator command" in line
    assert "run the command again" in line


def test_a_start_whose_connection_is_cut_has_started_nothing(bench: Bench) -> None:
    many(bench, "audio_ready", 3)
    plan = operable(bench.url).plan_backfill()
    bench.connection.execute(SLOW)
    before = everything(bench.connection)
    with children() as start:
        runner = start(lambda: plan.apply(confirm=plan.token, pause=0).state)
        asleep(bench)
        bench.sql(f"SELECT pg_terminate_backend(pid) FROM ({SLEEPS}) AS found")
        result = runner.result()
    assert result["error"] == "DatabaseError"
    assert len(result["text"].splitlines()) == 1
    assert everything(bench.connection) == before
    bench.sql("UPDATE slow SET seconds = 0")
    bench.sql("DROP VIEW tracks; ALTER TABLE tracks_table RENAME TO tracks")
    assert plan.apply(confirm=plan.token, pause=0).row["rows_done"] == 3


def test_a_batch_that_is_cut_off_every_time_fails_after_bounded_tries_and_is_resumed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RETRIES", 3)
    monkeypatch.setattr(pace.Pace, "rest", lambda self, seconds: None)
    tracks = many(bench, "audio_ready", 9)
    bench.connection.execute("""
        CREATE SEQUENCE tries;
        CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM nextval('tries'), pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
        CREATE TRIGGER cut AFTER INSERT ON audio_tasks FOR EACH STATEMENT EXECUTE FUNCTION cut();
    """)
    line = failure(command(bench.url, "backfill", "--apply", "--max-rows=9", "--pause=0"))
    assert "run 1 has failed: go on with it by `queue-insights resume 1`" in line
    assert bench.sql("SELECT last_value FROM tries") == [(3,)]
    assert rows(bench.connection) == {}
    assert operable(bench.url).run(1).state == "failed"
    bench.sql("DROP TRIGGER cut ON audio_tasks")
    assert command(bench.url, "resume", "1", "--pause=0").exit_code == 0
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)


# --- statements that take too long --------------------------------------------------------------


@pytest.mark.parametrize("name", [*READS, *ACTIONS])
def test_whatever_reads_a_slow_table_ends_at_the_timeout(bench: Bench, name: str) -> None:
    bench.task(bench.track("track", "audio_ready"), "clip")
    bench.connection.execute(SLOW)
    line = failure(command(bench.url, *name.split(), **{TIMEOUT: "0.1s"}))
    assert "statement timeout (at most 0.1 s)" in line
    assert "set QUEUE_INSIGHTS_STATEMENT_TIMEOUT=5min" in line


# --- a table that somebody has locked -----------------------------------------------------------


@pytest.fixture(params=["tracks", "audio_tasks"])
def locked(request: pytest.FixtureRequest, bench: Bench) -> Iterator[psycopg.Connection[Any]]:
    """A session that keeps everybody from one of the tables, with work waiting."""
    many(bench, "audio_ready", 6)
    with psycopg.connect(bench.url, application_name="a migration") as connection:
        connection.execute(f"LOCK TABLE {request.param} IN ACCESS EXCLUSIVE MODE")
        yield connection


@pytest.mark.parametrize(
    "name", ["backlog", "eta", "backfill", "prune", "views verify", "trigger verify"]
)
def test_what_reads_a_locked_table_ends_at_the_timeout(
    bench: Bench, locked: psycopg.Connection[Any], name: str
) -> None:
    line = failure(command(bench.url, *name.split(), **{TIMEOUT: "0.1s"}))
    assert "statement timeout (at most 0.1 s)" in line
    assert "wait for whoever has locked the table" in line
    locked.rollback()
    assert command(bench.url, *name.split(), **{TIMEOUT: "20s"}).exit_code in (0, 3)


LOCK_BOTH = "LOCK TABLE tracks, audio_tasks IN ACCESS EXCLUSIVE MODE"


def test_a_run_does_not_start_where_the_tables_are_locked_after_its_plan(bench: Bench) -> None:
    many(bench, "audio_ready", 6)
    plan = operable(bench.url).plan_backfill()
    waits, write = [], Database.write

    def lock_first(database: Database, lock: str = "500ms", **bounds: str) -> Any:
        locker.execute(LOCK_BOTH)
        waits.append(lock)
        return write(database, lock="100ms", **bounds)

    with psycopg.connect(bench.url) as locker, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "write", lock_first)
        with pytest.raises(DatabaseError, match="somebody holds a lock") as error:
            plan.apply(confirm=plan.token)
    assert len(str(error.value).splitlines()) == 1
    assert waits == ["30s"]
    assert bench.sql("SELECT to_regclass('queue_insights.runs')::text") == [(None,)]
    assert rows(bench.connection) == {}
    assert plan.apply(confirm=plan.token, pause=0).row["rows_done"] == 6


@pytest.mark.parametrize("table", ["tracks", "audio_tasks"])
def test_a_run_whose_table_is_locked_under_it_fails_after_bounded_tries_and_is_resumed(
    bench: Bench, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RETRIES", 2)
    tracks, settle = many(bench, "audio_ready", 120), runs._Loop.settle
    plan = operable(bench.url).plan_backfill()
    with psycopg.connect(bench.url) as other:

        def lock_after_one(loop: runs._Loop) -> int | None:
            loop.speed.chunks = 1
            done = settle(loop)
            other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            return done

        monkeypatch.setattr(runs._Loop, "settle", lock_after_one)
        with pytest.raises(DatabaseError) as error:
            plan.apply(confirm=plan.token, pause=0)
        monkeypatch.setattr(runs._Loop, "settle", settle)
    (line,) = str(error.value).splitlines()
    assert "somebody holds a lock" in line
    assert "run 1 has failed: go on with it by `queue-insights resume 1`" in line
    run = operable(bench.url).run(1)
    assert (run.state, run.row["rows_done"]) == ("failed", 50)
    assert pending(bench, "align") == tracks[:50]
    assert run.resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)


@pytest.mark.parametrize("what", [trigger, views])
def test_ddl_gives_up_beside_a_locked_table_and_names_table_and_holder(
    bench: Bench, locked: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, what: Any
) -> None:
    monkeypatch.setattr(migration, "PATIENCE", 0.1)
    monkeypatch.setattr(migration, "LOCK_TIMEOUT", 0.1)
    queue = operable(bench.url)
    before = bench.sql(MINE)
    held = bench.sql(
        "SELECT relation::regclass::text FROM pg_locks WHERE pid = %s AND mode = "
        "'AccessExclusiveLock' AND relation::regclass::text IN ('tracks', 'audio_tasks')",
        locked.info.backend_pid,
    )
    with pytest.raises(migration.MigrationError, match="nothing was changed") as error:
        what.install(queue)
    (line,) = str(error.value).splitlines()
    assert f"{held[0][0]} is in use by pid {locked.info.backend_pid} (a migration, idle in" in line
    assert bench.sql(MINE) == before
    locked.rollback()
    what.install(queue)
    assert what.verify(queue) == []
