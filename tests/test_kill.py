"""Runs that are killed, cut off and bereft of their server, at random moments: in the end all is as
an uninterrupted run leaves it, nothing twice, nothing lost, and the ledger agrees.
"""

import os
import random
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from conftest import Bench
from operating import give_rows, ledger_agrees, many, operable, rows, small_batches, video
from processes import Process, children, until
from queue_insights import demo
from queue_insights.queue import Queue

KILLS = 30  # in each variant, so 60 in a test run
ACTIONS = ("backfill", "reset", "requeue", "prune")


@pytest.fixture(scope="module")
def own_server() -> Iterator[demo.EmbeddedServer]:
    """A server of this module's own, since it is restarted."""
    folder = tempfile.mkdtemp(prefix="queue-insights-kill-", dir="/var/tmp")
    try:
        with demo.EmbeddedServer(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, chunk=5, first=1, largest=2)


def database(server: demo.EmbeddedServer, variant: str, template: str = "template1") -> Bench:
    name = f"kill_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    if template == "template1":
        with psycopg.connect(server.url(name)) as connection:
            demo.create_schema(connection, variant)
    url = server.url(name)
    return Bench(url, variant, psycopg.connect(url, autocommit=True), operable(url))


def populated(server: demo.EmbeddedServer, variant: str, count: int) -> tuple[Bench, Bench]:
    """Two equal databases with *count* rows for each action."""
    bench = database(server, variant)
    many(bench, "audio_ready", count)
    long_ago = {"attempts": "2", "last_attempt_at": "now() - interval '5 hours'"}
    give_rows(bench, many(bench, "aligned", count, "s"), "translate", "running", **long_ago)
    done = {"completed_at": "now() - interval '5 hours'", "metadata": "'null'"}
    give_rows(bench, many(bench, "segmented", count, "d"), "enhance", "completed", **done)
    give_rows(bench, many(bench, "ready", count, "o"), "clip", "pending", metadata="'[null]'")
    video(bench, "align")
    bench.connection.close()
    twin = database(server, variant, template=bench.url.split("@/")[1].split("?")[0])
    bench.connection = psycopg.connect(bench.url, autocommit=True)
    return bench, twin


def content(bench: Bench) -> list[tuple[Any, ...]]:
    """All task rows but for their numbers and updated_at."""
    return sorted(
        bench.sql("SELECT (to_jsonb(t) - '{id,updated_at}'::text[])::text FROM audio_tasks t")
    )


@dataclass
class Ordeal:
    """Drives runs to their end through processes that *strike* hits, each after a random time."""

    bench: Bench
    start: Callable[[Callable[[], Any]], Process]
    strike: Callable[[Process], None]
    longest: float = 0.25  # seconds; more with each strike, or a slow machine would get nowhere
    tolerated: tuple[str, ...] = ()  # what a run may end with before it is resumed
    queue: Queue = field(init=False)
    strikes: int = 0

    def __post_init__(self) -> None:
        self.queue = operable(self.bench.url)
        _ = self.queue.schema  # so that the children need not read it again

    def carry_out(self, action: str) -> int:
        """Apply *action* to its end; returns its run."""
        last = self._last_run()

        def work() -> str:
            if self._last_run() == last:
                return getattr(self.queue, f"plan_{action}")().apply(max_rows=9999, pause=0).state
            return self.queue.run(self._last_run()).resume(pause=0).state

        while self._last_run() == last or self.queue.run(self._last_run()).state != "finished":
            self._under_strikes(work)
        return self._last_run()

    def undo(self, run: int) -> None:
        def work() -> str:
            found = self.queue.run(run)
            go_on = found.resume if found.row["undoing"] else found.undo
            return go_on(pause=0).state

        while self.queue.run(run).state != "undone":
            self._under_strikes(work)

    def _last_run(self) -> int:
        found = self.queue.runs().run
        return int(found.iloc[0]) if len(found) else 0

    def _under_strikes(self, work: Callable[[], str]) -> None:
        process = self.start(work)
        if not process.ends_within(random.uniform(0, self.longest)):
            self.strike(process)
            self.strikes += 1
            self.longest *= 1.05
        result = process.result()
        assert result.get("error") in (None, *self.tolerated), result


@pytest.mark.parametrize("variant", ["a", "b"])
def test_after_60_sigkills_all_is_as_an_uninterrupted_run_leaves_it(
    own_server: demo.EmbeddedServer, variant: str
) -> None:
    bench, twin = populated(own_server, variant, 200)
    with children() as start:
        ordeal = Ordeal(bench, start, lambda process: process.send(signal.SIGKILL))
        rounds = 0
        while ordeal.strikes < KILLS:
            action = ACTIONS[rounds % len(ACTIONS)]
            before = rows(bench.connection)
            run = ordeal.carry_out(action)
            ledger_agrees(bench, run)
            assert ordeal.queue.run(run).row["rows_done"] == 200
            getattr(operable(twin.url), f"plan_{action}")().apply(max_rows=200, pause=0)
            assert content(bench) == content(twin)
            ordeal.undo(run)
            assert rows(bench.connection) == before
            operable(twin.url).run(rounds + 1).undo(pause=0)
            rounds += 1
    assert ordeal.strikes >= KILLS
    bench.connection.close()
    twin.connection.close()


def test_a_run_outlives_dropped_connections(own_server: demo.EmbeddedServer) -> None:
    bench, twin = populated(own_server, "a", 200)
    drop = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'queue-insights'"
    )

    def cut_off(process: Process) -> None:
        deadline = time.monotonic() + 10
        cut = 0
        while cut < 5 and time.monotonic() < deadline:
            cut += len(bench.sql(drop))
            if process.ends_within(random.uniform(0, 0.05)):
                break

    with children() as start:
        # A run tries a batch again, but not its start; and each batch only so many times.
        ordeal = Ordeal(bench, start, cut_off, tolerated=("DatabaseError",))
        before = rows(bench.connection)
        run = ordeal.carry_out("backfill")
        ledger_agrees(bench, run)
        operable(twin.url).plan_backfill().apply(max_rows=200, pause=0)
        assert content(bench) == content(twin)
        ordeal.undo(run)
    assert rows(bench.connection) == before
    assert ordeal.strikes > 0
    bench.connection.close()
    twin.connection.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_run_outlives_its_server_restarting_under_it(
    own_server: demo.EmbeddedServer, how: signal.Signals
) -> None:
    bench, twin = populated(own_server, "b", 300)
    expected = operable(twin.url).plan_backfill().apply(max_rows=300, pause=0)
    done = content(twin)
    twin.connection.close()
    queue = operable(bench.url)
    plan = queue.plan_backfill()
    with children() as start:
        process = start(lambda: plan.apply(confirm=plan.token, pause=0.01).state)
        counted = "SELECT count(*) FROM audio_tasks WHERE task_type = 'align'"
        until(lambda: bench.sql(counted)[0][0] >= 20, "the run's first rows")
        assert not process.ends_within(0)
        bench.connection.close()
        os.kill(own_server.postmaster_pid, how)
        own_server.start()
        result = process.result()
    bench.connection = psycopg.connect(bench.url, autocommit=True)
    if "error" in result:  # the server was away for longer than the run waits
        assert "queue-insights resume 1" in result["text"]
        queue.run(1).resume(pause=0)
    assert content(bench) == done
    ledger_agrees(bench, 1)
    assert queue.run(1).row["rows_done"] == 300
    assert expected.schema.pipeline == queue.pipeline
    bench.connection.close()
