"""Runs: begin one, go on with one, batch by batch, each in a transaction of its own."""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from queue_insights.actions import ledger, pace, statements
from queue_insights.actions.definitions import ACTIONS, Action, Parameters
from queue_insights.actions.privileges import require
from queue_insights.actions.progress import Progress
from queue_insights.database import Database, retried
from queue_insights.errors import DatabaseError, PlanError, RunError, Stopped
from queue_insights.schema import Schema
from queue_insights.sql import Query

RETRIES = 8
TRANSIENT = ("lost", "55P03", "57014", "40P01", "40001", "23503")


@dataclass
class Run:
    """One run of an action, as the ledger has it."""

    database: Database
    schema: Schema
    run: int

    @property
    def row(self) -> Mapping[str, Any]:
        """The run's row in the ledger: state, counts, who, when."""
        with self.database.read(primary=True) as moment:
            return ledger.get(moment.connection, self.run)

    @property
    def state(self) -> str:
        """running, stopped, failed, finished or undone."""
        return str(self.row["state"])

    def __repr__(self) -> str:
        row = self.row
        return f"<Run {self.run}: {row['action']} {row['state']}, {row['rows_done']} rows>"

    def resume(self, pause: float | None = None) -> "Run":
        """Go on with it from where it ended, taking it over from whoever has it.

        Raises RunError for an ended one.
        """
        row = self._fitting()
        if row["state"] in ("finished", "undone"):
            raise RunError(f"run {self.run} is {row['state']}: there is nothing to resume")
        return self._take(row, bool(row["undoing"]), pause)

    def stop(self) -> None:
        """End it after the batch in hand."""
        ledger.stop(self.database, self.run)

    def undo(self, pause: float | None = None) -> "Run":
        """Put back what is still as the run left it; ``kept()`` lists the rest.

        Raises RunError for one that still runs, or is undone already.
        """
        row, run = self._fitting(), self.run
        if row["state"] == "undone":
            raise RunError(f"run {run} is undone already; `queue-insights runs` shows its counts")
        if row["state"] == "running" and not row["undoing"]:
            raise RunError(
                f"{ledger.describe(row)} is unfinished: end it first by `queue-insights stop {run}`"
            )
        return self._take(row, True, pause)

    def dropped(self) -> pd.DataFrame:
        """What no longer qualified when its turn came: id (track's for backfill, else the task
        row's), task_type, reason."""
        return self._listed("dropped")

    def kept(self) -> pd.DataFrame:
        """Task rows that undo left alone: id, task_type, reason."""
        return self._listed("kept")

    def _listed(self, column: str) -> pd.DataFrame:
        with self.database.read(primary=True) as moment:
            return ledger.listed(moment.connection, self.run, column)

    def _fitting(self) -> Mapping[str, Any]:
        row, pipeline = self.row, self.schema.pipeline
        mine = (pipeline.name, pipeline.fingerprint, self.schema.variant)
        if (row["pipeline"], row["fingerprint"], row["variant"]) != mine:
            raise RunError(
                f"run {self.run} belongs to pipeline {row['pipeline']!r} as it was then "
                f"(fingerprint {row['fingerprint']}, variant {row['variant'].upper()}), not to "
                f"this one ({mine[1]}, variant {mine[2].upper()}): give its file with --pipeline"
            )
        return row

    def _take(self, row: Mapping[str, Any], undoing: bool, pause: float | None) -> "Run":
        with _alone(self.database, self.schema, ACTIONS[row["action"]]):
            fence = ledger.take_over(self.database, self.run, undoing)
        return _drive(self, fence, pause)


def start(
    database: Database,
    schema: Schema,
    action: Action,
    parameters: Parameters,
    planned: dict[str, int] | None,
    max_rows: int | None,
    pause: float | None,
) -> Run:
    """Begin a run of at most *planned* rows per task (None: all, unless they are more than
    *max_rows*). Raises PlanError if there are more rows now than was agreed to."""
    # To list a long queue takes its time, and so may another start that this one meets; what is
    # held here is only the new run.
    with (
        _alone(database, schema, action),
        database.write(lock="30s", statement="0", idle="30s") as connection,
    ):
        require(connection, schema, action)
        ledger.create(connection)
        run = ledger.begin(connection, schema, action, parameters)
        listing = statements.selection(
            *(schema, action, parameters, "list.sql", planned), run=run, chunk=pace.CHUNK
        )
        now = {row.task_type: int(row.rows) for row in listing.rows(connection)}
        _accept(action, now, planned, max_rows)
        planned = now if planned is None else planned
        ledger.ask(
            *(connection, "accept"),
            run=run,
            planned=json.dumps(planned),
            rows_planned=sum(planned.values()),
            came_after=sum(max(0, now[task] - planned[task]) for task in planned),
        )
    return _drive(Run(database, schema, run), 1, pause)


def _accept(
    action: Action, now: dict[str, int], planned: dict[str, int] | None, max_rows: int | None
) -> None:
    why = ""
    if max_rows is not None and sum(now.values()) > max_rows:
        why = f"{sum(now.values())} rows, more than max_rows {max_rows}"
    for task, then in (planned or {}).items():
        if now[task] > then * 1.1 and now[task] > then + 10:
            why = f"{task} has grown from {then} rows to {now[task]}"
    if why:
        raise PlanError(f"{action.name}: nothing was done: {why}; confirm the new plan")


@contextlib.contextmanager
def _alone(database: Database, schema: Schema, action: Action) -> Any:
    """Say who has the run that stands in the way of beginning or taking over one."""
    try:
        yield
    except DatabaseError as error:
        if "runs_one_unfinished" not in str(error):
            raise
        names = {"pipeline": schema.pipeline.name, "action": action.name}
        with database.read(primary=True) as moment:
            found = ledger.ask(moment.connection, "unfinished", **names).mappings().first()
        if found is None:
            raise RunError(f"another {action.name} has just ended: run the command again") from None
        run = found["run"]
        raise RunError(
            f"{action.name}: nothing was done: {ledger.describe(dict(found))} is unfinished; go on "
            f"with it by `queue-insights resume {run}`, or end it by `queue-insights stop {run}`"
        ) from None


def _drive(run: Run, fence: int, pause: float | None) -> Run:
    """Batches until there is nothing left to do, somebody asks to stop, or something fails."""
    speed, row = pace.Pace(pause), run.row
    go_on = f"go on with it by `queue-insights resume {run.run}`"
    try:
        with run.database.kept_open() as database, speed.interruptible(), Progress(row) as progress:
            loop = _Loop(database, run.schema, row, fence, speed)
            while (done := loop.settle()) is not None:
                progress.advance(done)
                if speed.interrupted:
                    raise Stopped(f"run {run.run} stopped after a whole batch; {go_on}")
    except Stopped as error:
        if speed.interrupted:
            ledger.end(run.database, run.run, fence, "stopped")
        raise error
    except RunError:
        raise
    except KeyboardInterrupt:
        ledger.end(run.database, run.run, fence, "stopped")
        raise Stopped(
            f"run {run.run} was cut off in a batch, which counts for nothing; {go_on}"
        ) from None
    except BaseException as error:
        with contextlib.suppress(DatabaseError):  # the reason is on its way already
            why = str(error) or type(error).__name__
            ledger.end(run.database, run.run, fence, "failed", why)
        if isinstance(error, DatabaseError):
            error.args = (f"{error}; run {run.run} has failed: {go_on}",)
        raise
    ledger.end(run.database, run.run, fence, "undone" if row["undoing"] else "finished")
    return run


class _Loop:
    """The one loop of doing and undoing: a turn is one statement with its entry in the ledger."""

    def __init__(
        self,
        database: Database,
        schema: Schema,
        row: Mapping[str, Any],
        fence: int,
        speed: pace.Pace,
    ):
        self.database, self.schema, self.row = database, schema, row
        self.fence, self.speed = fence, speed
        self.texts: dict[str, str] = {}

    def settle(self) -> int | None:
        """Settle one batch: how many rows it was about, or None if none was left. It is tried again
        a bounded number of times. One whose commit was cut off is safe to try again: its targets
        went with it, or are still there."""
        return retried(self._turn, TRANSIENT, RETRIES, self.speed.failed)

    def _turn(self) -> int | None:
        started, settled = time.monotonic(), None
        with self.database.write() as connection:
            ledger.hold(connection, self.row["run"], self.fence)
            name = "last_batch" if self.row["undoing"] else "next_chunk"
            found: Any = ledger.ask(connection, name, run=self.row["run"]).first()
            if found is not None:
                task, number = found
                binds = {"run": self.row["run"], "fence": self.fence, "batch": number}
                binds |= {"first": number, "beyond": number + self.speed.chunks}
                done: Any = Query(self._text(task), binds).rows(connection).one()
                settled = int(sum(done))
        self.speed.took(time.monotonic() - started, settled)
        return settled

    def _text(self, task: str) -> str:
        """The statement that a turn runs for this task, rendered once."""
        if task not in self.texts:
            action = ACTIONS[self.row["action"]]
            given = Parameters.from_json(self.row["parameters"])
            self.texts[task] = (
                statements.undo(self.schema, action)
                if self.row["undoing"]
                else statements.batch(self.schema, action, given, task)
            )
        return self.texts[task]
