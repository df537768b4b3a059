"""Runs: how they are interrupted, stopped, taken over, resumed, and refused to others."""

import os
import platform
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import Bench
from operating import (
    everything,
    give_rows,
    ledger_agrees,
    many,
    operable,
    pending,
    rows,
    small_batches,
)
from processes import Gate, Process, children, first_end, until
from queue_insights.actions import pace
from queue_insights.errors import RunError

Start = Callable[[Callable[[], Any]], Process]
STUCK = {"attempts": "1", "last_attempt_at": "now() - interval '5 hours'"}


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    """One variant: runs are alike in both."""
    return fresh("b")


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


def batches(bench: Bench, run: int = 1) -> int:
    found = bench.sql("SELECT count(*) FROM queue_insights.batches WHERE run = %s", run)
    return int(found[0][0])


def test_old_entries_are_pruned_and_those_of_unfinished_runs_kept(
    bench: Bench, start: Start
) -> None:
    many(bench, "audio_ready", 8)
    queue = operable(bench.url)
    queue.plan_retry().apply(max_rows=0)
    gate = Gate(bench, 1)
    killed = start(backfill(bench))
    gate.waited_at()
    killed.kill()
    bench.sql("UPDATE queue_insights.runs SET ended_at = now() - interval '8 days' WHERE run = 1")
    assert queue.prune_runs("9d") == 0
    assert queue.prune_runs("7d") == 1
    assert list(queue.runs().run) == [2]


def test_a_killed_run_is_refused_to_others_who_are_told_who_has_it_and_resumed(
    bench: Bench, start: Start
) -> None:
    tracks = many(bench, "audio_ready", 9)
    gate = Gate(bench, 2)
    killed = start(backfill(bench))
    gate.waited_at()
    killed.kill()
    queue = operable(bench.url)
    before = everything(bench.connection)
    plan = queue.plan_backfill()
    with pytest.raises(RunError) as refusal:
        plan.apply(confirm=plan.token)
    text = str(refusal.value)
    for part in (platform.node(), f"pid {killed.pid}", "resume 1", "stop 1"):
        assert part in text
    ((last,),) = bench.sql("SELECT last_batch_at FROM queue_insights.runs")
    assert f"{last:%Y-%m-%d %H:%M:%S} UTC" in text
    assert everything(bench.connection) == before
    assert (batches(bench), queue.run(1).state) == (2, "running")
    gate.allow()
    assert queue.run(1).resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)


def test_of_two_that_start_at_the_same_time_one_runs_and_the_other_is_told_by_whom(
    bench: Bench, start: Start
) -> None:
    tracks = many(bench, "audio_ready", 9)
    gate = Gate(bench, 0)
    go, ready = os.pipe()
    plan = operable(bench.url).plan_backfill()

    def work() -> str:
        os.read(go, 1)
        return plan.apply(confirm=plan.token, pause=0).state

    both = [start(work), start(work)]
    os.write(ready, b"12")
    gate.waited_at()
    first_end(both)
    gate.allow()
    results = [process.result() for process in both]
    told = next(result for result in results if "error" in result)
    done = next(result for result in results if "value" in result)
    other = both[results.index(done)]
    assert done == {"value": "finished"}
    assert told["error"] == "RunError"
    assert f"pid {other.pid}" in told["text"]
    assert "resume 1" in told["text"]
    assert pending(bench, "align") == tracks
    os.close(go)
    os.close(ready)


@pytest.mark.parametrize("where", ["in its transaction", "between batches"])
@pytest.mark.parametrize("what", ["backfill", "undo"])
def test_a_frozen_process_is_taken_over_and_changes_nothing_when_it_wakes(
    bench: Bench, start: Start, where: str, what: str
) -> None:
    tracks = many(bench, "audio_ready", 9)
    queue = operable(bench.url)
    pause = 0 if where == "in its transaction" else 0.5
    if what == "undo":
        queue.plan_backfill().apply(max_rows=9)
        work: Callable[[], str] = lambda: queue.run(1).undo(pause=pause).state  # noqa: E731
        settled = "SELECT count(*) FROM queue_insights.batches WHERE undone_at IS NOT NULL"
    else:
        work = backfill(bench, pause)
        settled = "SELECT count(*) FROM queue_insights.batches"
    if where == "in its transaction":
        gate = Gate(bench, 2 if what == "backfill" else 0)
        frozen = start(work)
        gate.waited_at()
        frozen.freeze()
        gate.allow()
    else:
        frozen = start(work)
        until(lambda: _settled(bench, settled) == 1, "the first batch")
        frozen.freeze()
    assert queue.run(1).resume(pause=0).state == ("undone" if what == "undo" else "finished")
    left = everything(bench.connection)
    frozen.wake()
    woken = frozen.result()
    assert woken["error"] == "RunError"
    assert "this process no longer has the run" in woken["text"]
    assert f"pid {os.getpid()}" in woken["text"]
    assert everything(bench.connection) == left
    assert pending(bench, "align") == (tracks if what == "backfill" else [])


def _settled(bench: Bench, query: str) -> int:
    if not bench.sql("SELECT to_regclass('queue_insights.batches')::text")[0][0]:
        return 0
    return int(bench.sql(query)[0][0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_run_after_the_batch_in_hand_and_says_how_to_resume(
    bench: Bench, start: Start, number: signal.Signals
) -> None:
    tracks = many(bench, "audio_ready", 9)
    gate = Gate(bench, 2)
    process = start(backfill(bench))
    gate.waited_at()
    process.send(number)
    gate.allow()
    result = process.result()
    assert result["error"] == "Stopped"
    assert "go on with it by `queue-insights resume 1`" in result["text"]
    queue = operable(bench.url)
    assert (queue.run(1).state, batches(bench)) == ("stopped", 3)
    assert pending(bench, "align") == tracks[:6]
    assert queue.run(1).resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks


def test_a_second_interrupt_ends_it_at_once_and_loses_the_batch_in_hand_only(
    bench: Bench, start: Start
) -> None:
    tracks = many(bench, "audio_ready", 9)
    gate = Gate(bench, 2)
    work = backfill(bench)
    heard, hears = os.pipe()

    def telling(pace: object, name: str, value: object) -> None:
        object.__setattr__(pace, name, value)
        if (name, value) == ("interrupted", True):
            os.write(hears, b"1")

    def worked() -> str:
        pace.Pace.__setattr__ = telling  # type: ignore[assignment, method-assign]
        return work()

    process = start(worked)
    gate.waited_at()
    process.send(signal.SIGINT)
    os.read(heard, 1)
    process.send(signal.SIGINT)
    result = process.result()  # while the gate is closed
    assert result["error"] == "Stopped"
    assert "queue-insights resume 1" in result["text"]
    queue = operable(bench.url)
    assert (queue.run(1).state, batches(bench)) == ("stopped", 2)
    gate.allow()
    assert queue.run(1).resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks


def test_an_interrupt_cuts_a_rest_short(bench: Bench, start: Start) -> None:
    many(bench, "audio_ready", 9)
    process = start(backfill(bench, pause=3600))
    counted = "SELECT count(*) FROM queue_insights.batches"
    until(lambda: _settled(bench, counted) == 1, "the first batch")
    process.send(signal.SIGTERM)
    assert process.result()["error"] == "Stopped"
    assert operable(bench.url).run(1).state == "stopped"


def test_stop_from_elsewhere_ends_it_after_the_batch_in_hand(bench: Bench, start: Start) -> None:
    tracks = many(bench, "audio_ready", 9)
    gate = Gate(bench, 2)
    process = start(backfill(bench))
    gate.waited_at()
    queue = operable(bench.url)
    stopping = start(lambda: queue.run(1).stop())
    waits = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    until(lambda: bench.sql(waits), "the one who stops it to wait")
    gate.allow()
    assert stopping.result() == {"value": None}
    result = process.result()
    assert result["error"] == "Stopped"
    assert "resume 1" in result["text"]
    assert queue.run(1).state == "stopped"
    done = pending(bench, "align")
    assert done == tracks[: len(done)]
    assert queue.run(1).resume(pause=0).state == "finished"
    assert pending(bench, "align") == tracks


def test_stop_frees_the_place_of_a_dead_run_for_a_new_one(bench: Bench, start: Start) -> None:
    tracks = many(bench, "audio_ready", 9)
    gate = Gate(bench, 2)
    killed = start(backfill(bench))
    gate.waited_at()
    killed.kill()
    gate.allow()
    queue = operable(bench.url)
    queue.run(1).stop()
    assert queue.plan_backfill().apply(max_rows=9, pause=0).row["rows_done"] == 5
    assert pending(bench, "align") == tracks
    resumed = queue.run(1).resume(pause=0)
    assert (resumed.state, resumed.row["rows_dropped"]) == ("finished", 5)
    assert pending(bench, "align") == tracks


def test_a_stopped_run_is_not_resumed_beside_another_of_its_action(
    bench: Bench, start: Start
) -> None:
    many(bench, "audio_ready", 9)
    gate = Gate(bench, 1)
    for _ in range(2):
        killed = start(backfill(bench))
        gate.waited_at()
        killed.kill()
        gate.allow(2)
        if len(operable(bench.url).runs()) == 1:
            operable(bench.url).run(1).stop()
    before = everything(bench.connection)
    for act in (operable(bench.url).run(1).resume, operable(bench.url).run(1).undo):
        with pytest.raises(RunError, match=r"run 2 \(.*resume 2.*stop 2"):
            act()
    assert everything(bench.connection) == before


def test_an_unfinished_run_is_not_undone_before_it_is_stopped(bench: Bench, start: Start) -> None:
    many(bench, "audio_ready", 9)
    gate = Gate(bench, 2)
    killed = start(backfill(bench))
    gate.waited_at()
    killed.kill()
    gate.allow()
    run = operable(bench.url).run(1)
    with pytest.raises(RunError, match="end it first by `queue-insights stop 1`"):
        run.undo()
    run.stop()
    assert run.undo(pause=0).row["rows_undone"] == 4
    assert rows(bench.connection) == {}


def test_undo_is_killed_and_resumed_as_an_undo(bench: Bench, start: Start) -> None:
    tracks = many(bench, "audio_ready", 9)
    give_rows(bench, tracks, "align", "running", **STUCK)
    queue = operable(bench.url)
    before = rows(bench.connection)
    queue.plan_reset().apply(max_rows=9, pause=0)
    bench.sql(
        "CREATE SEQUENCE seen; CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF nextval('seen') = 3 THEN PERFORM pg_sleep(30); END IF; RETURN NULL; END $$;"
    )
    bench.sql(
        "CREATE TRIGGER die BEFORE UPDATE ON audio_tasks FOR EACH STATEMENT EXECUTE FUNCTION die()"
    )
    killed = start(lambda: queue.run(1).undo(pause=0).state)
    until(lambda: bench.sql("SELECT 1 FROM seen WHERE last_value = 3"), "the third batch")
    killed.kill()
    bench.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
        "AND datname = current_database()"
    )
    run = queue.run(1)
    assert (run.state, run.row["undoing"], run.row["rows_undone"]) == ("running", True, 3)
    with pytest.raises(RunError, match="run 1"):
        queue.plan_reset().apply(max_rows=9)
    assert run.resume(pause=0).state == "undone"
    assert run.row["rows_undone"] == 9
    assert rows(bench.connection) == before
