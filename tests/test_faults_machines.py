"""Faults of a machine: a server that is killed, a full disk, a wrong clock. Each is one clear line;
nothing is half done; and all goes on where the fault has gone.

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

from conftest import Bench
from faults import ACTIONS, MINE, READS, SLOW, asleep, command, failure, queue_on
from operating import everything, ledger_agrees, many, operable, pending
from processes import PATIENCE, children, ended
from queue_insights import demo, doctor
from queue_insights.actions import runs
from queue_insights.ddl import views
from queue_insights.errors import DatabaseError


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    """One variant: faults are alike in both."""
    return fresh("b")


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
        asleep(bench)
        postmaster = server.postmaster_pid
        os.kill(postmaster, signal.SIGKILL)
        found = reader.result()
    assert "check that the server runs" in found["value"], found
    assert ended(postmaster, within=PATIENCE)
    assert "check that the server runs" in failure(command(bench.url, "backlog"))
    server.start()
    bench.connection = psycopg.connect(bench.url, autocommit=True)
    bench.sql("UPDATE slow SET seconds = 0")
    assert command(bench.url, "missing").stdout == answer
    bench.connection.close()


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
    bench, batch, filler = queue_on(server), runs._Loop.settle, folder / "filler"
    tracks = many(bench, "audio_ready", 5000)
    views.install(operable(bench.url))
    bench.sql("SELECT pg_switch_wal()")  # to the log's next file there is room: this is no crash
    bench.sql("CHECKPOINT")

    def fill_after_one(loop: runs._Loop) -> int | None:
        done = batch(loop)
        if not filler.exists():
            fill(folder)
        return done

    monkeypatch.setattr(runs._Loop, "settle", fill_after_one)
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
    for name in "prsx":
        bench.track(name, "audio_ready")
    bench.track("c", "aligned")
    bench.task("p", "align", created_at=sql(future))
    bench.task("r", "align", "running", last_attempt_at=sql("now() + interval '20 minutes'"))
    bench.task("s", "align", "running", last_attempt_at=sql(future))
    bench.task("x", "align", "failed", attempts=1, next_retry_at=sql(future))
    done = {"last_attempt_at": sql(future), "completed_at": sql(future)}
    bench.task("c", "align", "completed", attempts=1, processing_duration_ms=1000, **done)
    align = bench.queue.backlog().set_index("task_type").loc["align"]
    counts = align[["total", "pending", "running", "stuck", "backing_off"]]
    assert counts.tolist() == [4, 1, 1, 1, 1]
    assert bench.queue.backlog().set_index("task_type").loc["translate", "missing"] == 1
    assert operable(bench.url).plan_reset().rows == 1
    # What came or was done in the future is in no bucket of the past.
    assert bench.queue.throughput(since="1D")["completions"].sum() == 0
    for name in (*READS, "eta --end-to-end", "doctor", *ACTIONS):
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
# Reports are named by this machine's clock; doctor compares it with the server's; what a view's
# query is made for may be any moment.
ASKS = {"report/maker.py", "report/folders.py", "doctor.py", "ddl/views.py"}


def test_no_other_module_asks_for_this_machines_time() -> None:
    package = Path(doctor.__file__).parent
    found = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(
                    ast.Name("datetime" | "date" | "time" | "dt")
                    | ast.Attribute(attr="Timestamp" | "datetime" | "date"),
                    name,
                ) if name in CLOCKS:
                    found.add(str(file.relative_to(package)))
    assert found == ASKS
