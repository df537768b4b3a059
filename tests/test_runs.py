"""Runs: what the ledger says, and how they are interrupted, stopped, taken over, resumed."""

import logging
import os
import platform
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest

from conftest import Bench
from operating import everything, give_rows, ledger_agrees, many, operable, pending, rows
from processes import Gate, Process, children, until
from queue_insights.actions import apply, ledger, progress, targets
from queue_insights.errors import DatabaseError, RunError

Start = Callable[[Callable[[], Any]], Process]
STUCK = {"attempts": "1", "last_attempt_at": "now() - interval '5 hours'"}


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    """One variant: runs are alike in both."""
    return fresh("b")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "CHUNK", 2)
    for name, size in (("FIRST", 1), ("LARGEST", 1)):
        monkeypatch.setattr(apply, name, size)


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


def test_the_ledger_says_who_did_what_when_and_how_far_it_got(bench: Bench) -> None:
    many(bench, "audio_ready", 5)
    queue = operable(bench.url)
    assert len(queue.runs()) == 0
    before = queue.as_of
    run = queue.plan_backfill(tasks="align", limit=4, older_than="1m").apply(max_rows=4)
    found = queue.runs()
    assert list(found.columns)[:2] == ["run", "action"]
    entry = found.iloc[0]
    assert (entry.run, entry.action, entry.state, entry.pipeline) == (
        *(run.run, "backfill", "finished", "karaoke"),
    )
    assert (entry.host, entry.pid, entry.role) == (platform.node(), os.getpid(), "postgres")
    assert entry.parameters["tasks"] == ["align"]
    assert (entry.parameters["limit"], entry.parameters["older_than"]) == (4, 60.0)
    assert entry.planned == {"align": 4}
    assert (entry.rows_planned, entry.rows_done, entry.rows_dropped) == (4, 4, 0)
    assert before <= entry.started_at <= entry.last_batch_at <= entry.ended_at <= queue.as_of
    assert pd.isna(entry.error)
    assert (run.row["fingerprint"], run.row["variant"]) == (queue.pipeline.fingerprint, "b")
    ledger_agrees(bench, run.run)


def test_the_ledger_may_be_created_by_a_dba_first_and_twice(bench: Bench) -> None:
    bench.connection.execute(ledger.ddl())
    bench.connection.execute(ledger.ddl())
    many(bench, "audio_ready", 1)
    assert operable(bench.url).plan_backfill().apply(max_rows=1).run == 1


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
    until(
        lambda: any(os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) for p in both)
    )
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
        until(lambda: _settled(bench, settled) == 1)
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
        apply._Pace.__setattr__ = telling  # type: ignore[assignment, method-assign]
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
    until(lambda: _settled(bench, "SELECT count(*) FROM queue_insights.batches") == 1)
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
    until(lambda: bench.sql(waits))
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


def test_a_batch_that_fails_is_recorded_with_its_error_and_resumed_after_the_cause_is_gone(
    bench: Bench,
) -> None:
    tracks = many(bench, "audio_ready", 9)
    bench.sql(
        f"ALTER TABLE audio_tasks ADD CONSTRAINT odd CHECK (spotify_track_id <> '{tracks[5]}')"
    )
    queue = operable(bench.url)
    plan = queue.plan_backfill()
    with pytest.raises(DatabaseError, match=r'"odd".*run 1 has failed.*resume 1') as error:
        plan.apply(confirm=plan.token, pause=0)
    assert "\n" not in str(error.value)
    run = queue.run(1)
    assert (run.state, run.row["rows_done"]) == ("failed", 4)
    assert '"odd"' in run.row["error"]
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT odd")
    assert run.resume(pause=0).state == "finished"
    assert (run.row["error"], pending(bench, "align")) == (None, tracks)


@pytest.mark.parametrize("trouble", ["lock timeout", "lost connection", "deadlock"])
def test_passing_troubles_are_outlived(
    bench: Bench, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = many(bench, "audio_ready", 9)
    bench.sql("CREATE TABLE trouble (left_over int); INSERT INTO trouble VALUES (2)")
    bench.connection.execute("""
        CREATE FUNCTION make_trouble() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('application_name') = 'queue-insights' AND
               nextval('tries') BETWEEN 3 AND 5 THEN
                IF TG_ARGV[0] = 'deadlock' THEN
                    RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
                ELSIF TG_ARGV[0] = 'lock timeout' THEN
                    RAISE EXCEPTION 'lock timeout' USING ERRCODE = '55P03';
                END IF;
                PERFORM pg_terminate_backend(pg_backend_pid());
            END IF;
            RETURN NULL;
        END $$;
        CREATE SEQUENCE tries;
    """)
    bench.sql(
        "CREATE TRIGGER trouble BEFORE INSERT ON audio_tasks FOR EACH STATEMENT "
        f"EXECUTE FUNCTION make_trouble('{trouble}')"
    )
    run = operable(bench.url).plan_backfill().apply(max_rows=9, pause=0)
    assert run.state == "finished"
    assert bench.sql("SELECT last_value > 5 FROM tries") == [(True,)]
    assert pending(bench, "align") == tracks
    ledger_agrees(bench, 1)


def test_batches_shrink_on_timeouts_and_grow_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "FIRST", 16)
    monkeypatch.setattr(apply, "LARGEST", 64)
    pace = apply._Pace(0)
    monkeypatch.setattr(apply._Pace, "rest", lambda self, seconds: None)
    pace.failed(0)
    pace.failed(1)
    assert pace.chunks == 4
    for _ in range(5):
        pace.took(0.001, 4)
    assert pace.chunks == 64
    pace.took(60.0, 64)
    assert pace.chunks == 32


def test_without_a_terminal_progress_is_plain_lines(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    many(bench, "audio_ready", 6)
    with caplog.at_level(logging.INFO, "queue_insights"):
        operable(bench.url).plan_backfill().apply(max_rows=6, pause=0)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert lines[0].startswith("backfill (run 1): 2 of 6 rows, ")
    assert "rows/s" in lines[0]
    assert "s left" in lines[0]
    assert lines[-1].startswith("backfill (run 1): 6 of 6 rows, ")


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
    until(lambda: bench.sql("SELECT 1 FROM seen WHERE last_value = 3"))
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
