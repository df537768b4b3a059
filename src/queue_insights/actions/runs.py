"""Runs: go on with one, batch by batch, each in a transaction of its own; stop it; undo it."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from tqdm import tqdm  # not tqdm.auto: it warns where ipywidgets is not installed

from queue_insights.actions import ledger, pace, statements
from queue_insights.actions.definitions import Parameters, chosen_action
from queue_insights.database import Database, retried
from queue_insights.errors import DatabaseError, InputError, Refused, RunError, Stopped
from queue_insights.schema import AnySchema, Schema
from queue_insights.sql import Query
from queue_insights.sql.frames import fetch

RETRIES = 8
TRANSIENT = ("lost", "55P03", "57014", "40P01", "40001", "23503")
EVERY = 30.0  # seconds between lines of progress where there is no terminal
LINE = "{desc}: {n_fmt} of {total_fmt} rows, {rate_noinv_fmt}, {remaining} left"

log = logging.getLogger("queue_insights")


@dataclass
class Run:
    """One run of an action, as the ledger has it."""

    database: Database
    schema: AnySchema
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
        return self._take_over(row, bool(row["undoing"]), pause)

    def stop(self) -> None:
        """End it after the batch in hand, whether its process lives or not. It can be resumed.

        Raises RunError for a run that is not running.
        """
        state = self.state
        if ledger.change(self.database, "stop", self.run) is None:
            raise RunError(f"run {self.run} is {state}: there is nothing to stop")

    def undo(self, pause: float | None = None) -> "Run":
        """Put back what is still as the run left it; ``kept()`` lists the rest.

        Raises RunError for one that still runs, or is undone already.
        """
        row, run = self._fitting(), self.run
        if why := self.schema.pipeline.refusal("undo"):
            raise Refused(why)
        if row["state"] == "undone":
            raise RunError(f"run {run} is undone already; `queue-insights runs` shows its counts")
        if row["state"] == "running" and not row["undoing"]:
            raise RunError(
                f"{ledger.describe(row)} is unfinished: end it first by `queue-insights stop {run}`"
            )
        return self._take_over(row, True, pause)

    def dropped(self) -> pd.DataFrame:
        """What no longer qualified when its turn came: id (track's for backfill, else the task
        row's), task_type, reason."""
        return self._left_alone(undoing=False)

    def kept(self) -> pd.DataFrame:
        """Task rows that undo left alone: id, task_type, reason."""
        return self._left_alone(undoing=True)

    def _left_alone(self, undoing: bool) -> pd.DataFrame:
        query = Query(statements.named("left_alone"), {"run": self.run, "undoing": undoing})
        with self.database.read(primary=True) as moment:
            return fetch(moment.connection, query)

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

    def _take_over(self, row: Mapping[str, Any], undoing: bool, pause: float | None) -> "Run":
        """Go on with it as the only one who may: whoever had it before, dead, alive or frozen,
        finds its fencing number outdated in its next batch."""
        who = {"undoing": undoing, **ledger.this_process()}
        with ledger.alone(self.database, row["pipeline"], row["action"]):
            fence = ledger.change(self.database, "take_over", self.run, **who)
        return drive(self, fence, pause)


def drive(run: Run, fence: int, pause: float | None) -> Run:
    """Batches until there is nothing left to do, somebody asks to stop, or something fails."""
    row, speed = run.row, pace.Pace(pause)
    go_on = f"go on with it by `queue-insights resume {run.run}`"

    def end(state: str, error: str | None = None) -> None:
        """Record how this process's part ended, unless somebody has taken the run over."""
        ledger.change(run.database, "end", run.run, fence=fence, state=state, error=error)

    try:
        with run.database.kept_open() as database, speed.interruptible(), progress(row) as bar:
            loop = Loop(database, run.schema, row, fence, speed)
            while (done := retried(loop.settle, TRANSIENT, RETRIES, speed.failed)) is not None:
                bar.update(done)
                if speed.interrupted:
                    raise Stopped(f"run {run.run} stopped after a whole batch; {go_on}")
    except (Stopped, KeyboardInterrupt) as error:
        end("stopped")
        cut_off = f"run {run.run} was cut off in a batch, which counts for nothing; {go_on}"
        raise error if isinstance(error, Stopped) else Stopped(cut_off) from None
    except RunError:  # somebody else has it
        raise
    except BaseException as error:
        with contextlib.suppress(DatabaseError):  # the reason is on its way already
            end("failed", str(error) or type(error).__name__)
        if isinstance(error, DatabaseError):
            error.args = (f"{error}; run {run.run} has failed: {go_on}",)
        raise
    end("undone" if row["undoing"] else "finished")
    return run


@dataclass
class Loop:
    """What doing and undoing have in common: a turn is one statement, its entry in the ledger
    included."""

    database: Database
    schema: AnySchema
    row: Mapping[str, Any]
    fence: int
    speed: pace.Pace
    texts: dict[str, str] = field(default_factory=dict)

    def settle(self) -> int | None:
        """Settle one batch: how many rows it was about, or None if none was left. One whose commit
        was cut off is safe to try again: its targets went with it, or are still there."""
        started, settled, run = time.monotonic(), None, self.row["run"]
        following = "last_batch" if self.row["undoing"] else "next_chunk"
        with self.database.write() as connection:
            ledger.hold(connection, run, self.fence)
            found: Any = ledger.ask(connection, following, run=run).first()
            if found is not None:
                task, number = found
                values = {"run": run, "fence": self.fence, "batch": number}
                values |= {"first": number, "beyond": number + self.speed.chunks}
                counts = dict(Query(self.text(task), values).rows(connection).mappings().one())
                if counts.pop("strays", 0):
                    raise InputError("actions.retry gives the ids of jobs that it was not given")
                settled = int(sum(counts.values()))
        self.speed.took(time.monotonic() - started, settled)
        return settled

    def text(self, task: str) -> str:
        """The statement that a turn runs for this task, rendered once."""
        if task not in self.texts:
            schema, action = self.schema, chosen_action(self.row["action"], self.schema.variant)
            if self.row["undoing"]:
                assert isinstance(schema, Schema)  # else it was refused
                self.texts[task] = statements.undo(schema, action)
            else:
                given, step = Parameters(**self.row["parameters"]), schema.step(task)
                self.texts[task] = statements.batch(schema, action, given, step)
        return self.texts[task]


class Lines:
    """Takes what a bar prints into the log, as plain lines."""

    def write(self, text: str) -> None:
        if line := text.strip():
            log.info("%s", line)


def progress(run: Mapping[str, Any]) -> Any:
    """How far a run is: a bar where somebody watches, in a terminal or in JupyterLab (which
    papermill and cron do not have); plain lines in the log where nobody does, such as
    ``backfill (run 3): 50000 of 1000000 rows, 9000.00 rows/s, 01:45 left``."""
    undoing = run["undoing"]
    settled = ("rows_undone", "rows_kept") if undoing else ("rows_done", "rows_dropped")
    watched = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
    plain: dict[str, Any] = {"file": Lines(), "bar_format": LINE, "miniters": 1}
    return tqdm(
        total=run["rows_done" if undoing else "rows_planned"],
        initial=sum(run[name] for name in settled),
        desc=f"{'undo' if undoing else run['action']} (run {run['run']})",
        unit=" rows",
        **({} if watched else plain | {"mininterval": EVERY}),
    )
