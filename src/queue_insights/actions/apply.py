"""Runs: start one, go on with one, batch by batch, each in a transaction of its own."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from types import FrameType
from typing import Any

import pandas as pd
import sqlalchemy as sa

from queue_insights.actions import batch, ledger, targets, undo
from queue_insights.actions.definitions import ACTIONS, Action, Parameters
from queue_insights.actions.ledger import RUNS, TARGETS
from queue_insights.actions.progress import Progress
from queue_insights.actions.targets import CHUNK
from queue_insights.database import Database
from queue_insights.errors import DatabaseError, RunError, Stopped
from queue_insights.queue import Queue

FIRST = 1000 // CHUNK
LARGEST = 20_000 // CHUNK
TARGET_SECONDS = 0.5
GENTLE_SECONDS = 0.03
REST = 3.0  # times as long as the batch before it took
RETRIES = 8
TRANSIENT = ("55P03", "57014", "40P01", "40001", "23503")


@dataclass
class Run:
    """One run of an action, as the ledger has it."""

    queue: Queue
    run: int

    @property
    def row(self) -> Mapping[str, Any]:
        """The run's row in the ledger: state, counts, who, when."""
        with self.queue.database.read(primary=True) as moment:
            return ledger.get(moment.connection, self.run)

    @property
    def state(self) -> str:
        """running, stopped, failed, finished or undone."""
        return str(self.row["state"])

    def resume(self, pause: float | None = None) -> "Run":
        """Go on with it from where it ended, taking it over from whoever has it."""
        return resume(self.queue, self.run, pause)

    def stop(self) -> None:
        """End it after the batch in hand."""
        ledger.stop(self.queue.database, self.run)

    def undo(self, pause: float | None = None) -> "Run":
        """Put back what is still as the run left it; ``kept()`` lists the rest."""
        return undo_run(self.queue, self.run, pause)

    def dropped(self) -> pd.DataFrame:
        """What no longer qualified when its turn came: id (track's for backfill, else the task
        row's), task_type, reason."""
        return self._listed("dropped")

    def kept(self) -> pd.DataFrame:
        """Task rows that undo left alone: id, task_type, reason."""
        return self._listed("kept")

    def _listed(self, column: str) -> pd.DataFrame:
        with self.queue.database.read(primary=True) as moment:
            return ledger.listed(moment.connection, self.run, column)

    def __repr__(self) -> str:
        row = self.row
        return f"<Run {self.run}: {row['action']} {row['state']}, {row['rows_done']} rows>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the run as the ledger has it now."""
        cells = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in self.row.items()
            if value is not None
        )
        return f"<table><tbody>{cells}</tbody></table>"


def start(
    queue: Queue,
    action: Action,
    parameters: Parameters,
    planned: dict[str, int] | None,
    accept: Callable[[dict[str, int]], None],
    pause: float | None,
) -> Run:
    """Begin a run of at most *planned* rows per task (None: all), if *accept* does not raise for
    how many there are now."""
    row = {
        "pipeline": queue.pipeline.name,
        "fingerprint": queue.pipeline.fingerprint,
        "variant": queue.schema.variant,
        "action": action.name,
        "parameters": parameters.as_json(),
        **ledger.me(),
    }
    try:
        with queue.database.write() as connection:
            # The plan of a long queue takes its time, and so may another start that this one meets;
            # what is held here is only the new run.
            ledger.begin(connection, lock="30s", statement="0", idle="30s")
            ledger.require(connection, queue.schema, action)
            ledger.create(connection)
            row |= {"planned": {}, "rows_planned": 0}
            run = connection.scalar(sa.insert(RUNS).values(row).returning(RUNS.c.run))
            listing = targets.store(queue, action, parameters, planned)
            found = connection.execute(listing, {"of_run": run})
            now = {row.task_type: int(row.rows) for row in found}
            accept(now)
            planned = now if planned is None else planned
            counts = {
                "planned": planned,
                "rows_planned": sum(planned.values()),
                "came_after": sum(max(0, now[task] - planned[task]) for task in planned),
            }
            connection.execute(sa.update(RUNS).where(RUNS.c.run == run).values(counts))
    except DatabaseError as error:
        if "runs_one_unfinished" in str(error):
            raise _occupied(queue, action) from None
        raise
    return _drive(queue, int(run), 1, pause)


def _occupied(queue: Queue, action: Action) -> RunError:
    with queue.database.read(primary=True) as moment:
        found = (
            moment.connection.execute(
                sa.select(RUNS).where(
                    RUNS.c.pipeline == queue.pipeline.name,
                    RUNS.c.action == action.name,
                    RUNS.c.state == "running",
                )
            )
            .mappings()
            .first()
        )
    if found is None:
        return RunError(f"another {action.name} has just ended: run the command again")
    run = found["run"]
    return RunError(
        f"{action.name}: nothing was done: {ledger.describe(dict(found))} is unfinished; go on "
        f"with it by `queue-insights resume {run}`, or end it by `queue-insights stop {run}`"
    )


def resume(queue: Queue, run: int, pause: float | None = None) -> Run:
    """Take *run* over from whoever has it, and go on. Raises RunError for an ended one."""
    row = _fitting(queue, run)
    if row["state"] in ("finished", "undone"):
        raise RunError(f"run {run} is {row['state']}: there is nothing to resume")
    return _take(queue, row, bool(row["undoing"]), pause)


def undo_run(queue: Queue, run: int, pause: float | None = None) -> Run:
    """Undo *run*. Raises RunError for one that still runs, or is undone already."""
    row = _fitting(queue, run)
    if row["state"] == "undone":
        raise RunError(f"run {run} is undone already; `queue-insights runs` shows its counts")
    if row["state"] == "running" and not row["undoing"]:
        raise RunError(
            f"{ledger.describe(row)} is unfinished: end it first by `queue-insights stop {run}`"
        )
    return _take(queue, row, True, pause)


def _fitting(queue: Queue, run: int) -> Mapping[str, Any]:
    with queue.database.read(primary=True) as moment:
        row = ledger.get(moment.connection, run)
    mine = (queue.pipeline.name, queue.pipeline.fingerprint, queue.schema.variant)
    if (row["pipeline"], row["fingerprint"], row["variant"]) != mine:
        raise RunError(
            f"run {run} belongs to pipeline {row['pipeline']!r} as it was then (fingerprint "
            f"{row['fingerprint']}, variant {row['variant'].upper()}), not to this one ({mine[1]}, "
            f"variant {mine[2].upper()}): give its file with --pipeline"
        )
    return row


def _take(queue: Queue, row: Mapping[str, Any], undoing: bool, pause: float | None) -> Run:
    try:
        fence = ledger.take_over(queue.database, row["run"], undoing)
    except DatabaseError as error:
        if "runs_one_unfinished" in str(error):
            raise _occupied(queue, ACTIONS[row["action"]]) from None
        raise
    return _drive(queue, row["run"], fence, pause)


@dataclass
class _Pace:
    """How large the next batch is, and how long to rest before it.

    A batch holds locks on its tracks, and a processor: both keep workers waiting. So by default
    batches are short and each is followed by a rest as long as several of it, which is the more
    rest the busier the server is. A given *pause* means that nobody is in the way.
    """

    pause: float | None
    chunks: int = field(default_factory=lambda: FIRST)
    interrupted: bool = False

    def took(self, seconds: float, rows: int | None) -> None:
        target = GENTLE_SECONDS if self.pause is None else TARGET_SECONDS
        scale = min(2.0, max(0.5, target / max(seconds, 1e-3)))
        self.chunks = min(LARGEST, max(1, round(self.chunks * scale)))
        if rows == 0:  # only locked ones: give whoever has them time
            self.rest(0.3)
        elif rows:
            self.rest(self.pause if self.pause is not None else REST * seconds)

    def failed(self, attempt: int) -> None:
        self.chunks = max(1, self.chunks // 2)
        self.rest(min(8.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.5))

    def rest(self, seconds: float) -> None:
        """Sleep, but not past an interrupt. (An Event's wait could deadlock with the signal
        handler that sets it: both run in this thread.)"""
        until = time.monotonic() + seconds
        while not self.interrupted and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))


def _drive(queue: Queue, run: int, fence: int, pause: float | None) -> Run:
    """Batches until there is nothing left to do, somebody asks to stop, or something fails."""
    pace = _Pace(pause)
    with queue.database.read(primary=True) as moment:
        row = ledger.get(moment.connection, run)
    step_of = undo.batch if row["undoing"] else _batch
    total = row["rows_done"] if row["undoing"] else row["rows_planned"]
    go_on = f"go on with it by `queue-insights resume {run}`"
    try:
        with (
            queue.database.kept_open() as database,
            _interruptible(pace),
            Progress(row, total) as progress,
        ):
            context = _Context(queue, database, row, fence)
            while (done := _persistently(step_of, context, pace)) is not None:
                progress.advance(done)
                if pace.interrupted:
                    ledger.end(database, run, fence, "stopped")
                    raise Stopped(f"run {run} stopped after a whole batch; {go_on}")
    except (RunError, Stopped):
        raise
    except KeyboardInterrupt:
        ledger.end(queue.database, run, fence, "stopped")
        raise Stopped(
            f"run {run} was cut off in a batch, which counts for nothing; {go_on}"
        ) from None
    except BaseException as error:
        with contextlib.suppress(DatabaseError):  # the reason is on its way already
            ledger.end(queue.database, run, fence, "failed", str(error) or type(error).__name__)
        if isinstance(error, DatabaseError):
            error.args = (f"{error}; run {run} has failed: {go_on}",)
        raise
    ledger.end(queue.database, run, fence, "undone" if row["undoing"] else "finished")
    return Run(queue, run)


@dataclass
class _Context:
    queue: Queue
    database: Database
    row: Mapping[str, Any]
    fence: int
    statements: dict[str, sa.Update] = field(default_factory=dict)


def _persistently(step: Any, context: _Context, pace: _Pace) -> int | None:
    """One batch, tried again a bounded number of times where trying again can help. A batch whose
    commit was cut off is safe to try again: its targets went with it, or are still there."""
    for attempt in range(RETRIES):
        started = time.monotonic()
        try:
            done: int | None = step(context, pace.chunks)
        except DatabaseError as error:
            if not (error.lost or error.sqlstate in TRANSIENT) or attempt == RETRIES - 1:
                raise
            pace.failed(attempt)
        else:
            pace.took(time.monotonic() - started, done)
            return done
    raise AssertionError("unreachable")


def _batch(context: _Context, chunks: int) -> int | None:
    """Do one batch; how many targets it settled, or None if nothing was left."""
    run = context.row["run"]
    with context.database.write() as connection:
        ledger.begin(connection)
        ledger.hold(connection, run, context.fence)
        first = sa.select(TARGETS.c.task_type, TARGETS.c.chunk).where(TARGETS.c.run == run)
        found = connection.execute(first.order_by(TARGETS.c.chunk).limit(1)).first()
        if found is None:
            return None
        task, chunk = found
        if task not in context.statements:
            queue = context.queue
            context.statements[task] = batch.statement(
                queue.schema,
                ACTIONS[context.row["action"]],
                Parameters.from_json(context.row["parameters"]),
                *queue.pipeline.select(task),
            )
        binds = {"of_run": run, "of_fence": context.fence, "first": chunk, "beyond": chunk + chunks}
        done, dropped = connection.execute(context.statements[task], binds).one()
    return int(done + dropped)


@contextlib.contextmanager
def _interruptible(pace: _Pace) -> Iterator[None]:
    """Let Ctrl-C, a notebook's stop button and SIGTERM end the run after the batch in hand; a
    second one ends it at once, and the batch in hand with it, undone by the server."""

    def ask(signum: int, frame: FrameType | None) -> None:
        if pace.interrupted:
            raise KeyboardInterrupt
        pace.interrupted = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, ask) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
