"""Runs in processes of their own, forked from this warm one, to stop, freeze and kill; waiting."""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from conftest import Bench

PATIENCE = 60.0
OPEN = 2**40
SLEEPS = """
    SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'
    AND application_name = 'queue-insights' AND datname = current_database()
"""

# A batch waits here while as many as `allowed` are in the ledger; one that is undone, while as many
# are undone. It sleeps: on a lock it would wait no longer than the run's lock_timeout.
GATE = """
    CREATE TABLE gate (allowed bigint);
    INSERT INTO gate VALUES (0);
    CREATE FUNCTION pass_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        WHILE (SELECT CASE WHEN bool_or(undoing) THEN count(undone_at) ELSE count(batch) END
               FROM queue_insights.batches JOIN queue_insights.runs USING (run))
            >= (SELECT allowed FROM gate) LOOP
            PERFORM pg_sleep(0.002);
        END LOOP;
        RETURN NULL;
    END $$;
    CREATE TRIGGER gate BEFORE INSERT OR UPDATE OR DELETE ON audio_tasks
        FOR EACH STATEMENT EXECUTE FUNCTION pass_gate();
"""


@dataclass
class Process:
    """A child; ``result`` waits for its end and returns what it answered or raised."""

    pid: int
    answers: int
    reaped: bool = False

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """Return once it stands still."""
        self.send(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def wake(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.result()

    def ends_within(self, seconds: float) -> bool:
        """Whether it does; returns as soon as it has."""
        return bool(select.select([self.answers], [], [], seconds)[0])

    def result(self) -> dict[str, Any]:
        """{"value": ...} or {"error": class, "text": ...}; {} if it was killed."""
        with os.fdopen(self.answers) as pipe:
            answer = pipe.read()
        os.waitpid(self.pid, 0)
        self.reaped = True
        found: dict[str, Any] = json.loads(answer) if answer else {}
        return found


def forked(work: Callable[[], Any]) -> Process:
    """Start *work* in a child process."""
    answers, answer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(answer)
        return Process(pid, answers)
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        try:
            found: dict[str, Any] = {"value": work()}
        except BaseException as error:
            found = {"error": type(error).__name__, "text": str(error)}
        os.write(answer, json.dumps(found, default=str).encode())
    finally:
        os._exit(0)  # nothing of the parent's may be ended or flushed here


@contextlib.contextmanager
def children() -> Iterator[Callable[[Callable[[], Any]], Process]]:
    """``forked``, and an end to all of them."""
    started: list[Process] = []

    def start(work: Callable[[], Any]) -> Process:
        started.append(forked(work))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            if not process.reaped:
                process.kill()


def ended(pid: int, within: float) -> bool:
    """Whether the process, whosever child it is, does; returns as soon as it has."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], within)[0])
    finally:
        os.close(process)


def until(condition: Callable[[], object], what: str = "it", seconds: float = PATIENCE) -> None:
    """Return once *condition* holds: for what tells nobody that it has come to pass, such as the
    state of a server. Where there is an event (an end, a line, a pipe), wait for that instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)


class Gate:
    """Holds a run's batches inside their transactions, once *allowed* of them are in the ledger."""

    def __init__(self, bench: Bench, allowed: int):
        self.bench = bench
        bench.connection.execute(GATE)
        self.allow(allowed)

    def allow(self, batches: int = OPEN) -> None:
        self.bench.sql("UPDATE gate SET allowed = %s", batches)

    def waited_at(self) -> None:
        """Return once a batch waits here."""
        until(lambda: self.bench.sql(SLEEPS), "a batch at the gate")
