"""Runs that are killed and bereft of their server, at random moments: in the end all is as an
uninterrupted run leaves it, nothing twice, nothing lost, and the ledger agrees."""

import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from conftest import Bench, database
from operating import WORK, ledger_agrees, operable, rows, small_batches, video, work
from processes import Process, children, until
from queue_insights import demo
from queue_insights.queue import Queue
from servers import folder

pytestmark = pytest.mark.proof
KILLS = 30  # in each variant, so 60 in a test run


@pytest.fixture(scope="module")
def own_server() -> Iterator[demo.EmbeddedServer]:
    """A server of this module's own, since it is restarted."""
    with folder() as home, demo.EmbeddedServer(home / "demo") as server:
        yield server


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, chunk=5, first=1, largest=2)


@contextmanager
def populated(server: demo.EmbeddedServer, variant: str, count: int) -> Iterator[Bench]:
    """A queue with *count* rows for each action."""
    with database(server.url) as url, psycopg.connect(url, autocommit=True) as connection:
        demo.create_schema(connection, variant)
        bench = Bench(url, variant, connection, operable(url))
        work(bench, count)
        video(bench, "align")
        yield bench


def content(bench: Bench) -> list[tuple[Any, ...]]:
    """All task rows but for their numbers and updated_at."""
    return sorted(
        bench.sql("SELECT (to_jsonb(t) - '{id,updated_at}'::text[])::text FROM audio_tasks t")
    )


def left_alone(bench: Bench, action: str) -> list[tuple[Any, ...]]:
    """What a run leaves that nobody interrupts; it is undone again."""
    run = getattr(bench.queue, f"plan_{action}")().apply(max_rows=9999, pause=0)
    left = content(bench)
    run.undo(pause=0)
    return left


@dataclass
class Ordeal:
    """Drives runs to their end through processes that are killed, each after a random time."""

    queue: Queue
    start: Callable[[Callable[[], Any]], Process]
    longest: float = 0.25  # seconds; more with each kill, or a slow machine would get nowhere
    kills: int = 0

    def last(self) -> int:
        found = self.queue.runs().run
        return int(found.iloc[0]) if len(found) else 0

    def carry_out(self, action: str) -> int:
        """Apply *action* to its end; returns its run."""
        before = self.last()

        def work() -> None:
            if self.last() == before:
                self.queue.plan(action).apply(max_rows=9999, pause=0)
            else:
                self.queue.run(self.last()).resume(pause=0)

        while self.last() == before or self.queue.run(self.last()).state != "finished":
            self._killed_at_some_time(work)
        return self.last()

    def undo(self, run: int) -> None:
        def work() -> None:
            found = self.queue.run(run)
            (found.resume if found.row["undoing"] else found.undo)(pause=0)

        while self.queue.run(run).state != "undone":
            self._killed_at_some_time(work)

    def _killed_at_some_time(self, work: Callable[[], None]) -> None:
        process = self.start(work)
        if not process.ends_within(random.uniform(0, self.longest)):
            process.send(signal.SIGKILL)
            self.kills += 1
            self.longest *= 1.05
        assert "error" not in process.result()


@pytest.mark.parametrize("variant", ["a", "b"])
def test_60_sigkills_leave_no_trace(own_server: demo.EmbeddedServer, variant: str) -> None:
    with populated(own_server, variant, 200) as bench, children() as start:
        ordeal = Ordeal(bench.queue, start)
        actions = itertools.cycle(WORK)
        while ordeal.kills < KILLS:
            action, before = next(actions), rows(bench.connection)
            expected = left_alone(bench, action)
            assert rows(bench.connection) == before
            run = ordeal.carry_out(action)
            ledger_agrees(bench, run)
            assert ordeal.queue.run(run).row["rows_done"] == 200
            assert content(bench) == expected
            ordeal.undo(run)
            assert rows(bench.connection) == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_run_outlives_its_server(own_server: demo.EmbeddedServer, how: signal.Signals) -> None:
    with populated(own_server, "b", 300) as bench:
        expected = left_alone(bench, "backfill")
        plan = bench.queue.plan_backfill()
        with children() as start:
            process = start(lambda: plan.apply(confirm=plan.token, pause=0.01).state)
            counted = "SELECT count(*) FROM audio_tasks WHERE task_type = 'align'"
            until(lambda: bench.sql(counted)[0][0] >= 20, "the run's first rows")
            assert not process.ends_within(0)
            bench.connection.close()
            os.kill(own_server.postmaster_pid, how)
            own_server.start()
            result = process.result()
        with psycopg.connect(bench.url, autocommit=True) as bench.connection:
            run = bench.queue.run(2)
            if "error" in result:  # the server was away for longer than the run waits
                assert "queue-insights resume 2" in result["text"]
                run.resume(pause=0)
            assert content(bench) == expected
            ledger_agrees(bench, 2)
            assert run.row["rows_done"] == 300
