"""The facade that notebooks use: ``queue = queue_insights.connect()``, then ask."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from html import escape

import pandas as pd

from queue_insights import queries
from queue_insights.database import Database, Moment
from queue_insights.formats import duration
from queue_insights.pipeline import Pipeline
from queue_insights.schema import Schema, reflect


class Queue:
    """One pipeline on one database.

    Every read is a read-only transaction of its own, unless it stands inside ``snapshot``. Frames
    have the columns named in each docstring: text is ``str``, counts ``int64``, the tables' own
    integers ``Int64`` (they may be null), times ``datetime64[us, UTC]``, ages ``float64`` seconds.

    All reads raise DatabaseError when the server refuses or times out, and InputError for a task
    that the pipeline does not have or a table that does not fit the pipeline.
    """

    def __init__(self, database: Database, pipeline: Pipeline):
        self.database = database
        self.pipeline = pipeline
        self._moment: Moment | None = None

    def __repr__(self) -> str:
        return f"<Queue {self.pipeline.name}: {self.database.name}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the database, and the steps of the pipeline. Asks nobody."""
        title = f"Queue {self.pipeline.name} in {self.database.name}"
        head = "<tr><th>stage</th><th>task due</th><th>stuck after</th><th>max attempts</th></tr>"
        rows = "".join(
            f"<tr><td>{escape(step.stage)}</td><td>{escape(step.task)}</td>"
            f"<td>{duration(step.stuck_after.total_seconds())}</td><td>{step.max_attempts}</td></tr>"
            for step in self.pipeline.steps
        )
        table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
        return f"<p><strong>{escape(title)}</strong></p>{table}"

    @cached_property
    def schema(self) -> Schema:
        """The pipeline's tables as they are in this database (read once)."""
        with self.reading() as moment:
            return reflect(moment.connection, self.pipeline)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Moment]:
        """The snapshot at hand, or a read-only transaction of its own."""
        if self._moment is not None:
            yield self._moment
        else:
            with self.database.read() as moment:
                yield moment

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Moment]:
        """Make all reads inside see one moment (``.as_of``, UTC) of the database.

        >>> with queue.snapshot() as moment:
        ...     backlog, audit = queue.backlog(), queue.audit()
        """
        with self.reading() as moment:
            outer, self._moment = self._moment, moment
            try:
                yield moment
            finally:
                self._moment = outer

    @property
    def as_of(self) -> datetime:
        """The moment that the snapshot at hand sees, or the server's clock now (UTC)."""
        with self.reading() as moment:
            return moment.as_of

    def _fetch(self, query: queries.Query) -> pd.DataFrame:
        with self.reading() as moment:
            return queries.fetch(moment.connection, query)

    def backlog(self) -> pd.DataFrame:
        """How much work waits at each step, by state: one row per step, in pipeline order.

        Columns: stage, task_type, tracks, the ten states (missing, pending, retryable,
        backing_off, running, stuck, exhausted, drifted, skipped, other; their sum is tracks),
        eligible (missing + pending + retryable: what a worker would select now), waiting
        (eligible + backing_off), visible (rows with status pending, as getPendingTasks counts
        them), oldest_waiting_seconds (age of the longest waiting; NaN where none waits).
        """
        return self._fetch(queries.backlog(self.schema))

    def audit(self, sources: bool = False) -> pd.DataFrame:
        """What dashboards can see of the backlog: one row per step, in pipeline order.

        Columns: stage, task_type, eligible, visible, hidden (waiting with no row, so in no
        dashboard), orphans (pending or failed rows whose track is elsewhere), verdict (``hidden``
        if anything is, else ``overstated`` if there are orphans, else ``visible``).

        *sources* adds what each dashboard source itself says is pending (Int64, null where the
        view does not exist): get_pending_tasks and task_summary, rows of this task; and
        audio_progress, the sum of ``pending`` over the tracks at the stage. Those read what the
        dashboards read: all history.
        """
        return self._fetch(queries.audit(self.schema, sources))

    def missing(self, task: str | None = None, limit: int | None = None) -> pd.DataFrame:
        """Tracks that stand at a step and have no task row, the longest waiting first.

        Columns: the pipeline's id column, title, stage, task_type, arrived_at.

        >>> queue.missing("align", limit=10)
        """
        return self._fetch(queries.missing(self.schema, task, limit))

    def upcoming(self, task: str | None = None, limit: int | None = 50) -> pd.DataFrame:
        """The tracks that workers would select next, first come first.

        Columns: as ``missing``, and state, and the task row's columns (null without a row).
        """
        return self._fetch(queries.upcoming(self.schema, task, limit))

    def tasks(
        self, state: str | None = None, task: str | None = None, limit: int | None = None
    ) -> pd.DataFrame:
        """Tracks that stand at a step, in one *state* or in any, in order of arrival.

        Columns: as ``upcoming``. Raises InputError for an unknown state.

        >>> queue.tasks(state="stuck")
        """
        return self._fetch(queries.tasks(self.schema, state, task, limit))

    def orphans(self, task: str | None = None, limit: int | None = None) -> pd.DataFrame:
        """Pending and failed rows whose track is not at their task's stage.

        Columns: as ``upcoming`` without state; stage is where the track stands now (null if it
        has none).
        """
        return self._fetch(queries.orphans(self.schema, task, limit))

    def track(self, id: str) -> pd.DataFrame:
        """One track's whole task history: its task rows, and the step it stands at without one.

        Columns: as ``upcoming``; in pipeline order, tasks that the pipeline does not have last.
        stage is where the track stands now, state is null at the steps where it does not. Empty
        for a track that has no row and waits for none, or does not exist.

        >>> queue.track("4uLU6hMCjMI75M1A2tKUQC")
        """
        return self._fetch(queries.track(self.schema, id))
