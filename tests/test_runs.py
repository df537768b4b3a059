"""Runs: how they are interrupted, stopped, taken over, resumed, and refused to others."""

import os
import platform
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import Bench, Fresh
from operating import everything, ledger_agrees, many, operable, pending, small_batches
from processes import Gate, Process, children, until
from queue_insights.actions import ledger, pace
from queue_insights.errors import RunError

Ids = list[str]
Start = Callable[[Callable[[], Any]], Process]
WAITS = """
    SELECT pid FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


@pytest.fixture
def bench(fresh: Fresh) -> Bench:
    """One variant: runs are alike in both."""
    return fresh("b")


@pytest.fixture
def tracks(bench: Bench) -> list[str]:
    """Nine that wait, in order of arrival, where runs have a ledger."""
    bench.connection.execute(ledger.ddl())
    return many(bench, "audio_ready", 9)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, chunk=2, first=1, largest=1)


@pytest.fixture
def start() -> Iterator[Start]:
    with children() as forked:
        yield forked


def backfill(bench: Bench, pause: float | None = 0) -> Callable[[], str]:
    """The work of a process that applies a plan for all that is missing."""
    plan = operable(bench.url).plan_backfill()
    return lambda: plan.apply(confirm=plan.token, pause=pause).state


def at_gate(bench: Bench, start: Start, work: Callable[[], str]) -> tuple[Process, Gate]:
    """A process that is in its third batch, and what holds it there."""
    gate = Gate(bench, 2)
    process = start(work)
    gate.waited_at()
    return process, gate


def batches(bench: Bench) -> int:
    """How many there are, of the only run; while it is undone, how many are undone."""
    ((found,),) = bench.sql(
        "SELECT CASE WHEN bool_or(undoing) THEN count(undone_at) ELSE count(batch) END "
        "FROM queue_insights.runs JOIN queue_insights.batches USING (run)"
    )
    return int(found)


def stopped(result: dict[str, Any]) -> bool:
    """Whether a process has said so, and how to go on."""
    go_on = "go on with it by `queue-insights resume 1`"
    return result["error"] == "Stopped" and go_on in result["text"]


def test_a_killed_run_is_refused_to_others(bench: Bench, start: Start, tracks: Ids) -> None:
    killed, gate = at_gate(bench, start, backfill(bench))
    killed.kill()
    queue = operable(bench.url)
    plan, before = queue.plan_backfill(), everything(bench.connection)
    with pytest.raises(RunError) as refusal:
        plan.apply(confirm=plan.token)
    assert everything(bench.connection) == before
    ((last,),) = bench.sql("SELECT last_batch_at FROM queue_insights.runs")
    named = (platform.node(), f"pid {killed.pid}", f"{last:%Y-%m-%d %H:%M:%S} UTC")
    for part in (*named, "resume 1", "stop 1"):
        assert part in str(refusal.value)
    assert (batches(bench), queue.run(1).state) == (2, "running")
    gate.allow()
    assert queue.run(1).resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)


def test_of_two_that_start_at_once_one_runs(bench: Bench, start: Start, tracks: Ids) -> None:
    gate = Gate(bench, 0)
    go, ready = os.pipe()
    apply = backfill(bench)
    one, other = [start(lambda: (os.read(go, 1), apply())[1]) for _ in range(2)]
    os.write(ready, b"12")
    gate.waited_at()
    until(lambda: one.ends_within(0) or other.ends_within(0), "the first to end")
    told, works = (one, other) if one.ends_within(0) else (other, one)
    gate.allow()
    refusal = told.result()
    assert works.result() == {"value": "finished"}
    assert refusal["error"] == "RunError"
    assert f"pid {works.pid}" in refusal["text"]
    ((run,),) = bench.sql("SELECT run FROM queue_insights.runs")
    assert f"resume {run}" in refusal["text"]
    assert pending(bench, "align") == tracks
    os.close(go), os.close(ready)


@pytest.mark.parametrize("where", ["in its transaction", "between batches"])
@pytest.mark.parametrize("what", ["backfill", "undo"])
def test_a_frozen_process_is_taken_over_and_changes_nothing_when_it_wakes(
    bench: Bench, start: Start, tracks: Ids, where: str, what: str
) -> None:
    queue = operable(bench.url)
    pause = 0 if where == "in its transaction" else 0.5
    work, end, left = backfill(bench, pause), "finished", tracks
    if what == "undo":
        queue.plan_backfill().apply(max_rows=9)
        work, end, left = lambda: queue.run(1).undo(pause=pause).state, "undone", []
    if where == "in its transaction":
        frozen, gate = at_gate(bench, start, work)
        frozen.freeze()
        gate.allow()
    else:
        frozen = start(work)
        until(lambda: batches(bench) == 1, "the first batch")
        frozen.freeze()
    with pytest.raises(RunError, match=r"run 1 .*resume 1"):
        queue.plan_backfill().apply(max_rows=9)
    assert queue.run(1).resume(pause=0).state == end
    before = everything(bench.connection)
    frozen.wake()
    woken = frozen.result()
    assert woken["error"] == "RunError"
    assert "this process no longer has the run" in woken["text"]
    assert f"pid {os.getpid()}" in woken["text"]
    assert everything(bench.connection) == before
    assert pending(bench, "align") == left


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "stop"])
def test_an_interrupt_or_stop_ends_the_run_after_the_batch_in_hand_and_says_how_to_resume(
    bench: Bench, start: Start, tracks: Ids, how: signal.Signals | str
) -> None:
    process, gate = at_gate(bench, start, backfill(bench))
    run = operable(bench.url).run(1)
    if isinstance(how, signal.Signals):
        process.send(how)
        gate.allow()
    else:
        stopping = start(run.stop)
        until(lambda: bench.sql(WAITS), "the one who stops it to wait")
        gate.allow()
        assert stopping.result() == {"value": None}
    assert stopped(process.result())
    assert run.state == "stopped"
    assert batches(bench) == 3 or how == "stop"
    assert pending(bench, "align") == tracks[: 2 * batches(bench)]
    assert run.resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks


def test_a_second_interrupt_ends_it_at_once(bench: Bench, start: Start, tracks: Ids) -> None:
    work = backfill(bench)
    heard, hears = os.pipe()

    def telling(speed: pace.Pace, name: str, value: object) -> None:
        object.__setattr__(speed, name, value)
        if (name, value) == ("interrupted", True):
            os.write(hears, b"1")

    def worked() -> str:
        pace.Pace.__setattr__ = telling  # type: ignore[assignment, method-assign]
        return work()

    process, gate = at_gate(bench, start, worked)
    process.send(signal.SIGINT)
    os.read(heard, 1)
    process.send(signal.SIGINT)
    result = process.result()  # while the gate is closed
    assert stopped(result)
    run = operable(bench.url).run(1)
    assert (run.state, batches(bench)) == ("stopped", 2)
    gate.allow()
    assert run.resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks


def test_an_interrupt_cuts_a_rest_short(bench: Bench, start: Start, tracks: Ids) -> None:
    process = start(backfill(bench, pause=3600))
    until(lambda: batches(bench) == 1, "the first batch")
    process.send(signal.SIGTERM)
    assert stopped(process.result())
    assert operable(bench.url).run(1).state == "stopped"


def test_a_dead_run_is_stopped_and_then_undone(bench: Bench, start: Start, tracks: Ids) -> None:
    queue = operable(bench.url)
    killed, gate = at_gate(bench, start, backfill(bench))
    killed.kill()
    first = queue.run(1)
    with pytest.raises(RunError, match="end it first by `queue-insights stop 1`"):
        first.undo()
    gate.allow(3)  # the batch that it died in comes to nothing
    first.stop()
    assert pending(bench, "align") == tracks[:4]

    killed = start(backfill(bench))
    gate.waited_at()
    killed.kill()
    gate.allow()
    before = everything(bench.connection)
    for act in (first.resume, first.undo):
        with pytest.raises(RunError, match=r"run 2 \(.*resume 2.*stop 2"):
            act()
    assert everything(bench.connection) == before

    second = queue.run(2).resume(pause=0)
    assert (second.row["rows_done"], pending(bench, "align")) == (5, tracks)
    assert first.resume(pause=0).row["rows_dropped"] == 5
    assert first.undo(pause=0).row["rows_undone"] == 4
    assert pending(bench, "align") == tracks[4:]

    bench.sql("UPDATE queue_insights.runs SET ended_at = now() - interval '8 days'")
    bench.sql("UPDATE queue_insights.runs SET state = 'running' WHERE run = 2")
    assert [queue.prune_runs(age) for age in ("9d", "7d")] == [0, 1]
    assert list(queue.runs().run) == [2]  # unfinished
