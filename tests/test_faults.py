"""Faults from outside: a locked table, a full disk, a wrong clock. Each is one clear line, nothing
is half done, and all goes on where the fault has gone. More of them are in test_batches, test_kill.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from click.testing import Result

from conftest import Bench, Fresh
from operating import (
    WORK,
    Patch,
    command,
    everything,
    ledger_agrees,
    many,
    objects,
    operable,
    pending,
)
from queue_insights import demo, doctor
from queue_insights.actions import runs
from queue_insights.database import TIMEOUT
from queue_insights.ddl import views
from queue_insights.reads import READS
from servers import folder


def failure(result: Result) -> str:
    """The one line with which a command has failed, after its progress."""
    assert (result.exit_code, result.stdout) == (1, "")
    *progress, line = result.stderr.splitlines()
    assert all(" (run 1): " in said for said in progress), result.stderr
    assert line.startswith("queue-insights: ")
    return line


@pytest.fixture
def bench(fresh: Fresh) -> Bench:
    """One variant: faults are alike in both."""
    return fresh("b")


@pytest.mark.proof
def test_what_reads_a_locked_table_ends_at_the_timeout(bench: Bench) -> None:
    for name in {*READS} - {"track"} | {*WORK, "views verify", "trigger verify"}:
        with psycopg.connect(bench.url) as locker:
            locker.execute("LOCK TABLE tracks, audio_tasks IN ACCESS EXCLUSIVE MODE")
            line = failure(command(bench.url, *name.split(), **{TIMEOUT: "0.1s"}))
        assert "statement timeout (at most 0.1 s); set QUEUE_INSIGHTS_STATEMENT_TIMEOUT=5m" in line
        assert "wait for whoever has locked the table" in line
        assert command(bench.url, *name.split(), **{TIMEOUT: "60s"}).exit_code in (0, 3)


@pytest.fixture
def small() -> Iterator[Path]:
    """The folder of a file system that is small enough to fill."""
    with folder() as home:
        mount = ["mount", "-t", "tmpfs", "-o", "size=400m,mode=0700", "tmpfs", str(home)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("only root may mount a small file system, and not in every container")
        try:
            yield home
        finally:
            subprocess.run(["umount", "-l", str(home)], check=True)


def fill(filler: Path) -> None:
    """Take all room there is."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    assert shutil.disk_usage(filler).free < 1 << 12


def write_on(bench: Bench) -> None:
    """To the next file of the write-ahead log there is room, so that a full disk is no crash."""
    bench.sql("SELECT pg_switch_wal()")
    bench.sql("CHECKPOINT")


@pytest.mark.proof
def test_what_a_full_disk_ends_goes_on_later(small: Path, monkeypatch: Patch) -> None:
    filler, settle = small / "filler", runs.Loop.settle

    def fill_after_one(loop: runs.Loop) -> int | None:
        done = settle(loop)
        if not filler.exists():
            fill(filler)
        return done

    with demo.EmbeddedServer(small) as server:
        url = server.url("postgres")
        connection = psycopg.connect(url, autocommit=True)
        demo.create_schema(connection, "b")
        bench = Bench(url, "b", connection, operable(url))
        tracks = many(bench, "audio_ready", 10_000)
        write_on(bench)
        before, there = everything(bench.connection), objects(bench)
        fill(filler)
        for line in ("backfill --apply --max-rows=99999", "trigger install", "views install"):
            assert "No space left on device" in failure(command(bench.url, *line.split())), line
        assert everything(bench.connection) == before
        assert objects(bench) == there

        filler.unlink()
        views.install(bench.queue)
        write_on(bench)
        with monkeypatch.context() as patch:
            patch.setattr(runs.Loop, "settle", fill_after_one)
            line = failure(command(bench.url, "backfill", "--apply", "--max-rows=99999"))
        assert "No space left on device" in line
        assert "the server needs room on its disk first" in line
        assert "go on with it by `queue-insights resume 1`" in line
        done = bench.queue.run(1).row["rows_done"]
        assert 0 < done < 10_000
        assert pending(bench, "align") == tracks[:done]
        assert bench.sql("SELECT sum(cardinality(ids)) FROM queue_insights.batches") == [(done,)]
        assert command(bench.url, "backlog").exit_code == 0
        again = failure(command(bench.url, "resume", "1", "--pause=0"))
        assert "the server needs room on its disk first" in again
        assert pending(bench, "align")[:done] == tracks[:done]

        filler.unlink()
        resumed = command(bench.url, "resume", "1", "--pause=0")
        assert resumed.exit_code == 0, resumed.stderr
        assert pending(bench, "align") == tracks
        ledger_agrees(bench, 1)
        bench.connection.close()


def set_clock_ahead(patch: pytest.MonkeyPatch) -> None:
    """Set this process's clock ten years ahead, wherever Python code of ours can ask for it."""
    ahead, asked = timedelta(days=3652), time.time

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + ahead

        utcnow = today = now

    patch.setattr(time, "time", lambda: asked() + ahead.total_seconds())
    stamp = classmethod(lambda cls, tz=None: cls(datetime.now(tz) + ahead))
    patch.setattr(pd.Timestamp, "now", stamp, raising=False)
    for name, module in list(sys.modules.items()):
        if name.startswith("queue_insights") and getattr(module, "datetime", None) is datetime:
            patch.setattr(module, "datetime", Ahead)


def test_the_clock_of_the_client_means_nothing(bench: Bench, monkeypatch: Patch) -> None:
    demo.seed(bench.url, "b", 1000)
    queue = operable(bench.url)
    with queue.snapshot() as moment:
        asked = [lambda name=name: getattr(queue, name)() for name in {*READS} - {"track"}]
        answers = [ask() for ask in asked]
        set_clock_ahead(monkeypatch)
        assert doctor.datetime.now(UTC) - moment.as_of > timedelta(days=3000)
        for answer, ask in zip(answers, asked, strict=True):
            pd.testing.assert_frame_equal(ask(), answer)
    arrived = {row.spotify_track_id: row.arrived_at for row in queue.missing("align").itertuples()}
    run = queue.plan_backfill(tasks="align").apply(max_rows=999, pause=0)
    made = "SELECT spotify_track_id, created_at FROM audio_tasks WHERE task_type = 'align' "
    assert dict(bench.sql(f"{made} AND spotify_track_id = ANY (%s)", list(arrived))) == arrived
    stuck = len(queue.tasks("stuck"))
    assert queue.plan_reset().rows == stuck > 0
    assert queue.plan_reset(older_than="36000d").rows == 0
    latest = "SELECT max(greatest(started_at, last_batch_at, ended_at)) <= clock_timestamp()"
    assert bench.sql(f"{latest} FROM queue_insights.runs") == [(True,)]
    assert queue.prune_runs("1h") == 0
    assert run.undo(pause=0).row["rows_undone"] == len(arrived) > 0
