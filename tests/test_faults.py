"""Faults from outside: a locked table, a wrong clock. More are in test_batches and test_kill."""

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import psycopg
import pytest

from conftest import Bench, Fresh
from operating import WORK, Patch, command, operable
from queue_insights import demo, doctor
from queue_insights.database import TIMEOUT
from queue_insights.reads import READS


@pytest.fixture
def bench(fresh: Fresh) -> Bench:
    """One variant: faults are alike in both."""
    return fresh("b")


@pytest.mark.proof
def test_what_reads_a_locked_table_ends_at_the_timeout(bench: Bench) -> None:
    for name in {*READS} - {"track"} | {*WORK, "views verify", "trigger verify"}:
        with psycopg.connect(bench.url) as locker:
            locker.execute("LOCK TABLE tracks, audio_tasks IN ACCESS EXCLUSIVE MODE")
            failed = command(bench.url, *name.split(), **{TIMEOUT: "0.1s"})
        assert (failed.exit_code, failed.stdout) == (1, "")
        (line,) = failed.stderr.splitlines()
        assert "statement timeout (at most 0.1 s); set QUEUE_INSIGHTS_STATEMENT_TIMEOUT=5m" in line
        assert "wait for whoever has locked the table" in line
        assert command(bench.url, *name.split(), **{TIMEOUT: "60s"}).exit_code in (0, 3)


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
