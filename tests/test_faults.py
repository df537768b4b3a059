"""Faults that are not ours: a server that dies, is slow or out of disk, cut connections, wrong
clocks, tables that somebody has locked. Each is a bounded wait and one clear line; nothing is
half done; and all goes on where the fault has gone.

What random kills and restarts do to runs is in test_kill.
"""

import ast
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from click.testing import CliRunner, Result

from conftest import Bench
from operating import everything, ledger_agrees, many, operable, pending, rows
from processes import children, until
from queue_insights import demo, doctor, migration, trigger, views
from queue_insights.actions import apply, ledger
from queue_insights.cli import main
from queue_insights.database import READ_URL, TIMEOUT
from queue_insights.errors import DatabaseError

READS = (
    *("backlog", "audit", "missing", "upcoming", "tasks", "orphans"),
    *("throughput", "durations", "flow", "eta"),
)
ACTIONS = ("backfill", "reset", "retry", "requeue", "prune")
SLEEPS = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
    "AND application_name = 'queue-insights' AND datname = current_database()"
)
# Whoever reads a track through us sleeps, while the switch is on.
SLOW = """
    CREATE TABLE slow (seconds float8); INSERT INTO slow VALUES (60);
    ALTER TABLE tracks RENAME TO tracks_table;
    CREATE VIEW tracks AS SELECT spotify_track_id, title, updated_at,
        CASE WHEN pg_sleep((SELECT CASE current_setting('application_name')
            WHEN 'queue-insights' THEN seconds ELSE 0 END FROM slow)) IS NOT NULL THEN stage
        END AS stage
    FROM tracks_table
"""
MINE = """
    SELECT oid::regclass::text FROM pg_class WHERE relnamespace = to_regnamespace('queue_insights')
    UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1
"""


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    """One variant: faults are alike in both."""
    return fresh("b")


def command(url: str, *arguments: str, **environment: str) -> Result:
    result = CliRunner(env={READ_URL: url, **environment}).invoke(main, arguments)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result


def failure(result: Result) -> str:
    """The one line with which a command has failed, after its progress."""
    assert (result.exit_code, result.stdout) == (1, "")
    *progress, line = result.stderr.splitlines()
    assert all(" (run 1): " in said for said in progress), result.stderr
    assert line.startswith("queue-insights: ")
    return line


# --- a server that is killed --------------------------------------------------------------------


@pytest.fixture
def victim() -> Iterator[tuple[demo.EmbeddedServer, Bench]]:
    """A server of the test's own, to kill, with a queue on it."""
    folder = tempfile.mkdtemp(prefix="queue-insights-faults-", dir="/var/tmp")
    try:
        with demo.EmbeddedServer(folder) as server:
            yield server, queue_on(server)
    finally:
        shutil.rmtree(folder)


def queue_on(server: demo.EmbeddedServer) -> Bench:
    url = server.url("postgres")
    with psycopg.connect(url) as connection:
        demo.create_schema(connection, "b")
    return Bench(url, "b", psycopg.connect(url, autocommit=True), operable(url))


def test_a_server_killed_in_a_read_and_away_for_a_while_costs_a_line_each_time(
    victim: tuple[demo.EmbeddedServer, Bench],
) -> None:
    server, bench = victim
    many(bench, "audio_ready", 5)
    answer = command(bench.url, "missing").stdout
    assert answer
    bench.connection.execute(SLOW)
    with children() as start:
        reader = start(lambda: failure(command(bench.url, "missing")))
        until(lambda: bench.sql(SLEEPS))
        os.kill(server.postmaster_pid, signal.SIGKILL)
        found = reader.result()
    assert "check that the server runs" in found["value"], found
    until(lambda: not (server.data / "postmaster.pid").exists() or refused(bench.url))
    assert "check that the server runs" in failure(command(bench.url, "backlog"))
    server.start()
    bench.connection = psycopg.connect(bench.url, autocommit=True)
    bench.sql("UPDATE slow SET seconds = 0")
    assert command(bench.url, "missing").stdout == answer
    bench.connection.close()


def refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False


def test_one_queue_object_answers_truly_or_says_why_not_while_its_server_dies_again_and_again(
    victim: tuple[demo.EmbeddedServer, Bench],
) -> None:
    server, bench = victim
    many(bench, "audio_ready", 50)
    queue = operable(bench.url)
    expected = queue.backlog().drop(columns="oldest_waiting_seconds").to_csv()
    bench.connection.close()

    def read_on() -> list[str]:
        found = []
        while Path(server.folder, "read-on").exists():
            try:
                found.append(queue.backlog().drop(columns="oldest_waiting_seconds").to_csv())
            except DatabaseError as error:
                found.append(f"error: {error}")
        return list(dict.fromkeys(found))

    Path(server.folder, "read-on").touch()
    with children() as start:
        reader = start(read_on)
        for _ in range(3):
            os.kill(server.postmaster_pid, signal.SIGKILL)
            server.start()
        Path(server.folder, "read-on").unlink()
        found = reader.result()["value"]
    errors = [text for text in found if text.startswith("error: ")]
    assert errors
    assert set(found) - set(errors) <= {expected}
    assert all(len(error.splitlines()) == 1 for error in errors)
    assert all("check that the server" in e or "run the command again" in e for e in errors), errors
    assert queue.backlog().drop(columns="oldest_waiting_seconds").to_csv() == expected


# --- connections that are cut -------------------------------------------------------------------


def test_a_read_whose_connection_is_cut_in_the_middle_is_a_line(bench: Bench) -> None:
    many(bench, "audio_ready", 3)
    bench.connection.execute(SLOW)
    with children() as start:
        reader = start(lambda: failure(command(bench.url, "upcoming", "--format", "json")))
        until(lambda: bench.sql(SLEEPS))
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
        until(lambda: bench.sql(SLEEPS))
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
    monkeypatch.setattr(apply, "RETRIES", 3)
    monkeypatch.setattr(apply._Pace, "rest", lambda self, seconds: None)
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
    waits, begin = [], ledger.begin

    def lock_first(connection: Any, lock: str = "500ms", **bounds: str) -> None:
        locker.execute(LOCK_BOTH)
        waits.append(lock)
        begin(connection, lock="100ms", **bounds)

    with psycopg.connect(bench.url) as locker, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "begin", lock_first)
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
    monkeypatch.setattr(apply, "RETRIES", 2)
    tracks, batch = many(bench, "audio_ready", 120), apply._batch
    plan = operable(bench.url).plan_backfill()
    with psycopg.connect(bench.url) as other:

        def lock_after_one(context: Any, chunks: int) -> int | None:
            done = batch(context, 1)
            other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            return done

        monkeypatch.setattr(apply, "_batch", lock_after_one)
        with pytest.raises(DatabaseError) as error:
            plan.apply(confirm=plan.token, pause=0)
        monkeypatch.setattr(apply, "_batch", batch)
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


# --- a disk that is full ------------------------------------------------------------------------


@pytest.fixture
def small() -> Iterator[tuple[demo.EmbeddedServer, Path]]:
    """A server on a file system of its own, small enough to fill."""
    folder = Path(tempfile.mkdtemp(prefix="queue-insights-small-", dir="/var/tmp"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=0700", "tmpfs", str(folder)]
    try:
        if os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("only root can mount a small file system")
        if subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("this container may not mount a small file system")
        try:
            with demo.EmbeddedServer(folder) as server:
                yield server, folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(folder: Path) -> Path:
    """A file that takes all room there is."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    assert shutil.disk_usage(folder).free < 1 << 12
    return filler


def test_a_full_disk_on_the_server_ends_a_run_in_a_line_and_it_goes_on_once_there_is_room(
    small: tuple[demo.EmbeddedServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, folder = small
    bench, batch, filler = queue_on(server), apply._batch, folder / "filler"
    tracks = many(bench, "audio_ready", 5000)
    views.install(operable(bench.url))
    bench.sql("SELECT pg_switch_wal()")  # to the log's next file there is room: this is no crash
    bench.sql("CHECKPOINT")

    def fill_after_one(context: Any, chunks: int) -> int | None:
        done = batch(context, chunks)
        if not filler.exists():
            fill(folder)
        return done

    monkeypatch.setattr(apply, "_batch", fill_after_one)
    line = failure(command(bench.url, "backfill", "--apply", "--max-rows=5000", "--pause=0"))
    assert "No space left on device" in line
    assert "the server needs room on its disk first" in line
    assert "go on with it by `queue-insights resume 1`" in line

    done = operable(bench.url).run(1).row["rows_done"]
    assert 0 < done < 5000
    assert pending(bench, "align") == tracks[:done]
    assert bench.sql("SELECT sum(cardinality(ids)) FROM queue_insights.batches") == [(done,)]
    assert command(bench.url, "backlog").exit_code == 0
    again = failure(command(bench.url, "resume", "1", "--pause=0"))
    assert "the server needs room on its disk first" in again
    assert pending(bench, "align")[:done] == tracks[:done]

    monkeypatch.undo()
    filler.unlink()
    resumed = command(bench.url, "resume", "1", "--pause=0")
    assert resumed.exit_code == 0, resumed.stderr
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)
    bench.connection.close()


def test_on_a_full_disk_nothing_starts_and_nothing_of_it_stays(
    small: tuple[demo.EmbeddedServer, Path],
) -> None:
    server, folder = small
    bench = queue_on(server)
    many(bench, "audio_ready", 20_000)
    bench.sql("SELECT pg_switch_wal()")
    bench.sql("CHECKPOINT")
    before, objects = everything(bench.connection), bench.sql(MINE)
    filler = fill(folder)
    for line in ("backfill --apply --max-rows=99999", "trigger install", "views install"):
        assert "No space left on device" in failure(command(bench.url, *line.split())), line
    assert everything(bench.connection) == before
    assert bench.sql(MINE) == objects
    filler.unlink()
    assert command(bench.url, "backfill", "--apply", "--max-rows=20000", "--pause=0").exit_code == 0
    ledger_agrees(bench, 1)
    bench.connection.close()


# --- clocks that are off ------------------------------------------------------------------------


def test_rows_of_workers_whose_clocks_are_ahead_are_read_by_the_definitions(bench: Bench) -> None:
    future = "now() + interval '3 hours'"
    for name, stage in (("p", "audio_ready"), ("r", "audio_ready"), ("c", "aligned")):
        bench.track(name, stage)
    bench.track("x", "audio_ready")
    bench.task("p", "align", created_at=sql(future))
    bench.task("r", "align", "running", attempts=1, last_attempt_at=sql(future))
    bench.task("x", "align", "failed", attempts=1, next_retry_at=sql(future))
    done = {"last_attempt_at": sql(future), "completed_at": sql(future)}
    bench.task("c", "align", "completed", attempts=1, processing_duration_ms=1000, **done)
    align = bench.queue.backlog().set_index("task_type").loc["align"]
    assert align[["tracks", "pending", "running", "stuck", "backing_off"]].tolist() == [
        3,
        1,
        1,
        0,
        1,
    ]
    assert bench.queue.backlog().set_index("task_type").loc["translate", "missing"] == 1
    assert operable(bench.url).plan_reset().rows == 0
    # What came or was done in the future is in no bucket of the past.
    assert bench.queue.throughput(since="1D")["completions"].sum() == 0
    for name in (*READS, "flow --averages", "eta --end-to-end", "doctor", *ACTIONS):
        assert command(bench.url, *name.split()).exit_code == 0, name


def sql(expression: str) -> psycopg.sql.SQL:
    return psycopg.sql.SQL(expression)


@pytest.fixture
def wrong_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sets this process's clock ten years ahead, wherever Python code of ours can ask for it."""
    ahead = timedelta(days=3652)

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + ahead

        utcnow = today = now

    def set_it() -> None:
        asked = time.time
        monkeypatch.setattr(time, "time", lambda: asked() + ahead.total_seconds())
        stamp = classmethod(lambda cls, tz=None: cls(datetime.now(tz) + ahead))
        monkeypatch.setattr(pd.Timestamp, "now", stamp, raising=False)
        for name, module in list(sys.modules.items()):
            if name.startswith("queue_insights") and getattr(module, "datetime", None) is datetime:
                monkeypatch.setattr(module, "datetime", Ahead)

    return set_it


def test_the_clock_of_the_client_means_nothing_to_reads_plans_and_runs(
    bench: Bench, wrong_clock: Callable[[], None]
) -> None:
    demo.seed(bench.url, "b", 1000)
    queue = operable(bench.url)
    with queue.snapshot() as moment:
        asked = [lambda name=name: getattr(queue, name)() for name in READS]
        answers = [ask() for ask in asked]
        wrong_clock()
        assert doctor.datetime.now(UTC) - moment.as_of > timedelta(days=3000)
        for answer, ask in zip(answers, asked, strict=True):
            pd.testing.assert_frame_equal(ask(), answer)
    arrived = {row.spotify_track_id: row.arrived_at for row in queue.missing("align").itertuples()}
    run = queue.plan_backfill(tasks="align").apply(max_rows=999, pause=0)
    made = bench.sql(
        "SELECT spotify_track_id, created_at FROM audio_tasks WHERE task_type = 'align' "
        "AND spotify_track_id = ANY (%s)",
        list(arrived),
    )
    assert made
    assert all(created == arrived[id] for id, created in made)
    stuck = len(queue.tasks("stuck"))
    assert queue.plan_reset().rows == stuck > 0
    assert queue.plan_reset(older_than="36000d").rows == 0
    ((wrong,),) = bench.sql(
        "SELECT count(*) FROM queue_insights.runs WHERE greatest(started_at, last_batch_at, "
        "ended_at) > clock_timestamp()"
    )
    assert wrong == 0
    assert queue.prune_runs("1h") == 0
    assert run.undo(pause=0).row["rows_undone"] == len(made)


CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "gmtime", "localtime"}
ASKS = {  # reports are named by this machine's clock; doctor compares it with the server's
    *(("report", "datetime.now"), ("runs", "datetime.now"), ("doctor", "datetime.now")),
}


def test_no_other_module_asks_for_this_machines_time() -> None:
    package = Path(doctor.__file__).parent
    found = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(ast.Name("datetime" | "date" | "time" | "dt") as of, name) if (
                    name in CLOCKS
                ):
                    found.add((file.stem, f"{of.id}.{name}"))
                case ast.Attribute(ast.Attribute(attr="Timestamp" | "datetime" | "date"), name) if (
                    name in CLOCKS
                ):
                    found.add((file.stem, f"{ast.unparse(node)}"))
    assert found == ASKS
