"""Everything that writes rows of the queue: planned, recorded in a ledger, undoable."""

from collections.abc import Iterable
from datetime import timedelta

import pandas as pd

from queue_insights.actions import ledger, plan
from queue_insights.actions.apply import Run
from queue_insights.actions.definitions import ACTIONS
from queue_insights.errors import InputError
from queue_insights.pipeline import parse_duration
from queue_insights.queue import Queue

Tasks = str | Iterable[str] | None
Age = str | timedelta | None


class OperableQueue(Queue):
    """A Queue that can also plan actions. Nothing is written until a plan is applied.

    All plans narrow down by *tasks* (one, several; default all), *older_than* (a duration such as
    ``2h`` since the last attempt, else since arrival), *error* (text that the row's error message
    contains, case ignored) and *limit* (the first so many in order of arrival). They raise
    InputError for what does not fit the action or the pipeline.

    >>> plan = queue.plan_backfill(tasks=["align"])
    >>> plan.preview()
    >>> run = plan.apply(confirm=plan.token)
    >>> run.undo()
    """

    def plan_backfill(
        self, tasks: Tasks = None, older_than: Age = None, limit: int | None = None
    ) -> plan.Plan:
        """Insert a pending row for each track that waits without one, max_attempts from the
        pipeline. With a *limit*, for those that workers would take first (the hybrid option)."""
        return self._plan("backfill", tasks=tasks, older_than=older_than, limit=limit)

    def plan_reset(
        self,
        tasks: Tasks = None,
        older_than: Age = None,
        error: str | None = None,
        limit: int | None = None,
        attempts: str = "refund",
    ) -> plan.Plan:
        """Make stuck rows pending. *attempts*: ``refund`` the one that was counted when the lost
        worker started, ``keep`` it, or ``zero`` all."""
        given = {"tasks": tasks, "older_than": older_than, "error": error, "limit": limit}
        return self._plan("reset", **given, attempts=attempts)

    def plan_retry(
        self,
        tasks: Tasks = None,
        older_than: Age = None,
        error: str | None = None,
        limit: int | None = None,
    ) -> plan.Plan:
        """Make exhausted and failed rows pending, with fresh attempts."""
        return self._plan("retry", tasks=tasks, older_than=older_than, error=error, limit=limit)

    def plan_requeue(
        self,
        tasks: Tasks = None,
        older_than: Age = None,
        error: str | None = None,
        limit: int | None = None,
    ) -> plan.Plan:
        """Make completed rows pending whose track still stands at their stage (drifted)."""
        return self._plan("requeue", tasks=tasks, older_than=older_than, error=error, limit=limit)

    def plan_prune(
        self,
        tasks: Tasks = None,
        older_than: Age = None,
        error: str | None = None,
        limit: int | None = None,
        status: str = "pending",
    ) -> plan.Plan:
        """Remove orphans: rows of *status* (pending, or failed: evidence) whose track has moved
        on."""
        given = {"tasks": tasks, "older_than": older_than, "error": error, "limit": limit}
        return self._plan("prune", **given, status=status)

    def _plan(self, name: str, **given: object) -> plan.Plan:
        action = ACTIONS[name]
        return plan.make(self, action, action.parameters(**given))  # type: ignore[arg-type]

    def runs(self) -> pd.DataFrame:
        """All runs in the ledger, newest first.

        Columns: run, action, pipeline, state, undoing, rows_planned, rows_done, rows_dropped,
        came_after, rows_undone, rows_kept (Int64), started_at, last_batch_at, ended_at, role, host,
        pid, parameters, planned, error.
        """
        with self.database.read(primary=True) as moment:
            return ledger.runs(moment.connection)

    def prune_runs(self, age: str | timedelta) -> int:
        """Drop the ledger's entries of runs that ended longer than *age* ago; returns how many.
        They can no longer be undone. Raises InputError for a bad duration."""
        try:
            return ledger.prune(self.database, parse_duration(age))
        except ValueError as error:
            raise InputError(f"runs: age: found {age!r}, {error}") from None

    def run(self, run: int) -> Run:
        """The run with that number. Raises RunError if there is none."""
        found = Run(self, run)
        _ = found.row
        return found


__all__ = ["OperableQueue", "Run"]
