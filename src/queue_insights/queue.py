"""The facade that notebooks use: ``queue = queue_insights.connect()``, then ask."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from html import escape
from typing import Any

import pandas as pd

from queue_insights import eta, flow, queries
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

    def _fetch_now(self, read: Callable[..., queries.Query], *arguments: Any) -> pd.DataFrame:
        """Fetch a read that must be told which moment is now."""
        with self.snapshot() as moment:
            return self._fetch(read(self.schema, moment.as_of, *arguments))

    def sql(self, room: str, read: str, **arguments: Any) -> str:
        """The statement of a read as text for psql; *room* is the module that has it."""
        if room == "queries":
            return queries.compile_sql(getattr(queries, read)(self.schema, **arguments))
        found = getattr({"flow": flow, "eta": eta}[room], read)
        return queries.compile_sql(found(self.schema, self.as_of, **arguments))

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

    def throughput(
        self,
        since: str = "7D",
        bucket: str = "1h",
        zone: str = "UTC",
        task: str | None = None,
    ) -> pd.DataFrame:
        """What came to each step, was done and failed, per bucket of time: one row for every bucket
        and step, zeros included, in order of time, then of the pipeline.

        Columns: bucket (its start, UTC), stage, task_type, arrivals, completions, failures (int64).
        Arrivals are counted by the definition of the lists' arrived_at: at the completion of the
        previous task, else at the row's creation, else at the track's last update. Completions are
        counted at completed_at. Failures are the rows that have failed, at their last attempt: an
        attempt that failed before another, or before a success, leaves no time behind.

        *bucket*: ``1D`` and ``1W`` are calendar days and weeks (from Monday) of the time zone
        *zone*; ``15min`` or ``6h`` are as long as they say, counted from its midnight. The first
        bucket begins at or before *since* ago; the last is the one that now is in, so it may still
        grow. In *zone*: ``throughput(...)["bucket"].dt.tz_convert(zone)``. Raises InputError for an
        unknown zone, a malformed duration, and more than 20,000 buckets.

        >>> queue.throughput(since="4W", bucket="1D", zone="Europe/Berlin")
        """
        return self._fetch_now(flow.throughput, since, bucket, zone, task)

    def durations(self, since: str = "7D", task: str | None = None) -> pd.DataFrame:
        """How long tasks ran and tracks waited, of those done *since*: one row per step.

        Columns: stage, task_type, completions (int64); run_p50_seconds, run_p90_seconds,
        run_p99_seconds (processing_duration_ms, of the attempt that succeeded);
        waiting_p50_seconds, waiting_p90_seconds, waiting_p99_seconds (from arrival to the start of
        the last attempt, so with backoff and earlier attempts); waiting (how many wait now) and
        oldest_waiting_seconds, as ``backlog`` has them. Percentiles are interpolated, NaN where
        nothing is known. They tell of who got through: of a step that stands still only
        oldest_waiting_seconds does.
        """
        return self._fetch_now(flow.durations, since, task)

    def flow(
        self,
        since: str = "60D",
        bucket: str = "1h",
        zone: str = "UTC",
        task: str | None = None,
    ) -> pd.DataFrame:
        """How many tracks were at each step, weeks back, whether they had rows then or not: one row
        for every bucket and step (buckets as in ``throughput``).

        Columns: bucket (its start, UTC), stage, task_type, then int64: arrivals and departures
        within the bucket, left (those of the departures that did not complete the task); depth,
        the tracks at the step as the bucket began, and waiting, those of them that nobody worked
        on; undated and reprocessed, those of the departures whose time had to be guessed.

        A track is at a step from its arrival until its task completes. Depth is reckoned back from
        how many are there now: ``depth + arrivals - departures`` is the next bucket's depth, and
        after the last bucket what is there now (``backlog``'s tracks without drifted and skipped).
        Waiting counts the exhausted, since when is not recorded, and takes a track as worked on in
        its last attempt only.

        History keeps one visit of a track to a step, and not all of it: *undated* rows (completed,
        without completed_at) count as done when the last attempt ended, by processing_duration_ms,
        else at updated_at; *reprocessed* ones (completed before the previous task was, which must
        have been done anew) as there for no time. Who left without completing counts as gone
        when its row was skipped, else when it got a row at a later step, else at the track's
        updated_at. Not counted: who stands before a step that it was at before, and untouched rows
        of tracks that no completion led to the step.

        >>> queue.flow(since="30D", task="align").set_index("bucket")["depth"].max()
        """
        return self._fetch_now(flow.flow, since, bucket, zone, task)

    def flow_averages(self, since: str = "60D", task: str | None = None) -> pd.DataFrame:
        """The averages of ``flow`` over all of *since*, by Little's law: one row per step.

        Columns: stage, task_type; arrivals, departures, left, undated, reprocessed (int64, as in
        ``flow``); mean_depth (L: the tracks there, averaged over time), arrivals_per_hour (lambda);
        mean_stay_seconds (W = L / lambda: Little, 1961), and beside it measured_stay_seconds, the
        mean of the stays that ended, where their times are known. Where the two differ the queue
        was not steady: a W above what was measured means that those who wait have waited for long.
        """
        return self._fetch_now(flow.flow_averages, since, task)

    def eta(self, task: str | None = None) -> pd.DataFrame:
        """When the work that waits at each step will be done: one row per step.

        Columns: stage, task_type, waiting (int64); status: ``draining``, ``growing`` (more comes
        than is done), ``stalled``, ``empty`` or ``insufficient_history`` (the last but one nothing
        to do, ``stalled`` and ``insufficient_history`` without any range);
        clear_p50_seconds, clear_p80_seconds, clear_p95_seconds: until as many further completions
        as wait now; clear_lower_seconds and clear_upper_seconds: the 80% range, of which held of
        the last given (int64) held on this queue; empty_p50_seconds and so on: until none waits,
        arrivals included (NaN where that is not to be expected); each p50, p80 and p95 also as a
        clock time, ``_at`` (UTC). rate_per_hour, arrivals_per_hour, growth_per_hour (arrivals minus
        completions) over the last 7 days; needed_per_hour, the rate at which a growing queue would
        stop growing; basis, what the range is based on.

        From the last 45 days (down to 14 where more than a million tasks were done in them),
        counted by five minutes. Who left without completing the task, and who is stuck or
        exhausted, is left out. See ``queue_insights.forecast`` for the method.
        """
        with self.snapshot() as moment:
            return eta.step_forecasts(self._events(task), moment.as_of)

    def eta_end_to_end(self) -> pd.DataFrame:
        """When all tracks that are now at a step will be through the last one: one row.

        Columns: inside (int64: the tracks that wait or are worked on, at any step), status
        (``draining``, ``empty`` or ``insufficient_history``), p50_seconds, p80_seconds,
        p95_seconds, lower_seconds and upper_seconds (the 80% range, of which held of given held),
        p50_at, p80_at, p95_at (UTC), held, given (int64), basis. The steps are simulated together;
        where more than 20,000 tracks went through in 45 days, with a sample of them.
        """
        with self.snapshot() as moment:
            return eta.end_to_end(moment.connection, self.schema, moment.as_of)

    def backtest(
        self, task: str | None = None, levels: Sequence[float] = (0.8,), min_waiting: int = 20
    ) -> pd.DataFrame:
        """What ``eta`` would have said about each step in the past, and whether it held: one row
        for every level, step, and moment (every 6 hours of the last 45 days, but the first 7) at
        which at least *min_waiting* tracks were there and what came of it is known.

        Columns: level (float64, the range's promise), stage, task_type, origin (the moment, UTC),
        waiting (int64, with those in work), actual_seconds (until as many completions),
        p50_seconds, lower_seconds, upper_seconds (NaN where it would not have said), status (as
        ``forecast.backtest`` has it), held (boolean: actual within the range; null without one).
        Each moment's range is made from what was known then. Neighbouring moments share much of
        what happened next, so 100 rows tell less than 100 coins.

        Raises InputError for an unknown task and for a level that is not between 0 and 1.

        >>> queue.backtest("align", levels=(0.5, 0.8, 0.95)).groupby("level")["held"].mean()
        """
        with self.snapshot() as moment:
            return eta.past_ranges(self._events(task), moment.as_of, levels, min_waiting)

    def _events(self, task: str | None) -> pd.DataFrame:
        with self.snapshot() as moment:
            history = eta.enough(moment.connection, self.schema, moment.as_of)
            return self._fetch_now(eta.eta, task, history)
