"""The facade that notebooks use: ``queue = queue_insights.connect()``, then ask."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import pandas as pd

from queue_insights.actions import ledger
from queue_insights.actions.definitions import ACTIONS, Tasks, chosen_action, parameters
from queue_insights.actions.plan import Plan
from queue_insights.actions.runs import Run
from queue_insights.database import Database, Moment, script
from queue_insights.errors import Refused
from queue_insights.forecast import steps
from queue_insights.pipeline import JobPipeline, Pipeline, parse_duration
from queue_insights.schema import AnySchema, reflect
from queue_insights.sql import Query
from queue_insights.sql.frames import enough, fetch, pages, query, supposed

Text = str | None
Ids = Iterable[str] | None


class Queue:
    """One pipeline on one database.

    Every read is a read-only transaction of its own, unless it stands inside ``snapshot``. Frames
    have the columns named in each docstring: text is ``str``, counts ``int64``, the tables' own
    integers ``Int64`` (they may be null), times ``datetime64[us, UTC]``, ages ``float64`` seconds.
    All reads raise DatabaseError when the server refuses or times out, and InputError for a task
    that the pipeline does not have or a table that does not fit the pipeline.

    Plans narrow an action down by *tasks* (one, several; default all), *older_than* (a duration
    such as ``2h`` since the last attempt, else since arrival), *error* (text that the row's error
    message contains, case ignored) and *limit* (the first so many in order of arrival). They raise
    InputError for what does not fit. Nothing is written until a plan is applied.

    >>> plan = queue.plan_backfill(tasks=["align"])
    >>> run = plan.apply(confirm=plan.token)
    """

    def __init__(self, database: Database, pipeline: Pipeline | JobPipeline):
        self.database = database
        self.pipeline = pipeline
        self._moment: Moment | None = None

    def __repr__(self) -> str:
        return f"<Queue {self.pipeline.name}: {self.database.name}>"

    @cached_property
    def schema(self) -> AnySchema:
        """The tables as they are in this database (read once)."""
        with self.snapshot() as moment:
            return reflect(moment.connection, self.pipeline)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Moment]:
        """Make all reads inside see one moment (``.as_of``, UTC) of the database.

        >>> with queue.snapshot() as moment:
        ...     backlog, audit = queue.backlog(), queue.audit()
        """
        if self._moment is not None:
            yield self._moment
            return
        with self.database.read() as moment:
            self._moment = moment
            try:
                yield moment
            finally:
                self._moment = None

    @property
    def as_of(self) -> datetime:
        """The moment that the snapshot at hand sees, or the server's clock now (UTC)."""
        with self.snapshot() as moment:
            return moment.as_of

    def sql(self, name: str, end_to_end: bool = False, **given: Any) -> str:
        """The read *name* as text for psql: its transaction, and the query for the parameters
        *given* (default as in READS). For ``eta`` it gives the counts that a forecast is made of
        (*end_to_end*: of the whole pipeline), which are the same whatever is supposed.

        >>> print(queue.sql("upcoming", task="align"))
        """
        found = self._end_to_end() if end_to_end else self._query(name, **given)
        return script(found.sql, self.database.timeout)

    def _query(self, name: str, **given: Any) -> Query:
        self.require(name)
        with self.snapshot() as moment:
            if given.get("task") is not None:
                given["steps"] = self.schema.steps(moment.connection, given["task"])
            if name == "eta" and "history" not in given:
                given["history"] = enough(moment.connection, self.schema, moment.as_of)
            return query(self.schema, moment.as_of, name, **given)

    def require(self, what: str) -> None:
        """Raises Refused, with the reason, where this queue has no such read or action."""
        if why := self.pipeline.refusal(what):
            raise Refused(why)

    def stages(self, what: str) -> Pipeline:
        """The pipeline of tracks. Raises Refused where *what* is asked of another queue."""
        self.require(what)
        assert isinstance(self.pipeline, Pipeline)
        return self.pipeline

    def _read(self, name: str, **given: Any) -> pd.DataFrame:
        with self.snapshot() as moment:
            found = fetch(moment.connection, self._query(name, **given))
        actions = [name for name in ACTIONS if not self.pipeline.refusal(name)]
        found.attrs |= {"items": self.pipeline.items, "actions": actions}
        return found

    def pages(self, name: str, size: int = 10_000, **given: Any) -> Iterator[pd.DataFrame]:
        """A list that may be too long for the memory: what the read *name* (``missing``, ``tasks``,
        ...) answers, as frames of *size* rows at most, all of one moment. There is at least one
        frame, which may be empty."""
        found = self._query(name, **given)
        # Not by snapshot(): who stops halfway would leave other reads in that moment.
        here = contextlib.nullcontext(self._moment) if self._moment else self.database.read()
        with here as moment:
            yield from pages(moment.connection, found, size)

    def backlog(self) -> pd.DataFrame:
        """How much work waits at each step, by state: one row per step, in pipeline order.

        Columns: stage, task_type, total (the tracks at the stage), the eleven states (as in STATES;
        their sum is total), eligible (what a worker would select now: missing, pending, retryable),
        waiting (eligible and backing_off), visible (rows with status pending, as getPendingTasks
        counts them), oldest_waiting_seconds (age of the longest waiting; NaN where none waits).
        """
        return self._read("backlog")

    def audit(self, sources: bool = False) -> pd.DataFrame:
        """What dashboards can see of the backlog: one row per step, in pipeline order.

        Columns: stage, task_type, eligible, visible, hidden (waiting with no row, so in no
        dashboard), orphans (pending or failed rows whose track is elsewhere), verdict (``hidden``
        if anything is, else ``overstated`` if there are orphans, else ``visible``). *sources* adds
        what each dashboard source says is pending, from all history (Int64, null without the view):
        get_pending_tasks and task_summary, rows of this task; audio_progress, the sum of
        ``pending`` over the tracks at the stage.
        """
        return self._read("audit", sources=sources)

    def missing(
        self, task: Text = None, limit: int | None = None, ids: Ids = None, failure: Text = None
    ) -> pd.DataFrame:
        """Tracks that stand at a step and have no task row, the longest waiting first. Columns: the
        pipeline's id column, title, stage, task_type, arrived_at.

        *ids* and *failure* narrow a list down: to these tracks (none of them: no row), and to the
        failed rows of one kind, as ``failures`` names it."""
        return self._read("missing", task=task, limit=limit, ids=ids, failure=failure)

    def upcoming(
        self, task: Text = None, limit: int | None = 50, ids: Ids = None, failure: Text = None
    ) -> pd.DataFrame:
        """The tracks that workers would select next, first come first. Columns: as ``missing``, and
        state, and the task row's columns (null without a row)."""
        return self._read("upcoming", task=task, limit=limit, ids=ids, failure=failure)

    def tasks(
        self,
        state: Text = None,
        task: Text = None,
        limit: int | None = None,
        ids: Ids = None,
        failure: Text = None,
    ) -> pd.DataFrame:
        """Tracks that stand at a step, in one *state* or in any, in order of arrival. Columns: as
        ``upcoming``. Raises InputError for an unknown state.

        >>> queue.tasks(state="stuck")
        """
        given = {"state": state, "task": task, "limit": limit, "ids": ids, "failure": failure}
        return self._read("tasks", **given)

    def orphans(
        self, task: Text = None, limit: int | None = None, ids: Ids = None, failure: Text = None
    ) -> pd.DataFrame:
        """Pending and failed rows whose track is not at their task's stage. Columns: as
        ``upcoming`` without state; stage is where the track stands now (null if it has none)."""
        return self._read("orphans", task=task, limit=limit, ids=ids, failure=failure)

    def failures(
        self, since: str = "1D", task: Text = None, limit: int | None = None
    ) -> pd.DataFrame:
        """Why tasks fail: one row per step and kind of message, most rows first. Messages are of
        one kind where they differ only in numbers, ids, addresses, paths and quoted parts; rows of
        status failed count, if their track still stands there.

        Columns: task_type, failure (8 hex digits that name the kind, for ``failure=`` elsewhere),
        error (the message, such parts as ``*``), rows, exhausted, retryable (of the rows, those
        that are retried by themselves), first_seen and last_seen (UTC), last_hour, last_day,
        last_week (rows by their last attempt), new (bool: no row of that kind that the table still
        has failed before *since* ago). Raises InputError for a bad duration."""
        return self._read("failures", since=since, task=task, limit=limit)

    def track(self, id: str) -> pd.DataFrame:
        """One track's whole task history: its task rows, and the step it stands at without one; in
        pipeline order, tasks that the pipeline does not have last. Columns: as ``upcoming``; stage
        is where the track stands now, state is null at the steps where it does not. Empty for a
        track that has no row and waits for none, or does not exist."""
        return self._read("track", id=id)

    def throughput(
        self, since: str = "7D", bucket: str = "1h", zone: str = "UTC", task: str | None = None
    ) -> pd.DataFrame:
        """What came to each step, was done and failed, per bucket of time: one row for every bucket
        and step, zeros included, in order of time, then of the pipeline.

        Columns: bucket (its start, UTC), stage, task_type, arrivals, completions, failures (int64).
        Arrivals as the lists have arrived_at, completions at completed_at, failures the rows that
        have failed, at their last attempt: earlier attempts leave no time behind.

        *bucket*: ``1D`` and ``1W`` are calendar days and weeks (from Monday) of the time zone
        *zone*; ``15min`` or ``6h`` are counted from its midnight. The first bucket begins at or
        before *since* ago; the last is the one that now is in, so it may still grow. Raises
        InputError for an unknown zone, a malformed duration, and more than 20,000 buckets.

        >>> queue.throughput(since="4W", bucket="1D", zone="Europe/Berlin")
        """
        return self._read("throughput", since=since, bucket=bucket, zone=zone, task=task)

    def durations(self, since: str = "7D", task: str | None = None) -> pd.DataFrame:
        """How long tasks ran and tracks waited, of those done *since*: one row per step.

        Columns: stage, task_type, completions (int64); run_p50_seconds, run_p90_seconds,
        run_p99_seconds (processing_duration_ms, of the attempt that succeeded);
        waiting_p50_seconds, waiting_p90_seconds, waiting_p99_seconds (from arrival to the start of
        the last attempt); waiting (int64) and oldest_waiting_seconds, as ``backlog`` has them.
        Percentiles are interpolated, NaN where nothing is known, and cover finished tasks only: of
        a step at which nothing moves, look at oldest_waiting_seconds.
        """
        return self._read("durations", since=since, task=task)

    def flow(
        self, since: str = "60D", bucket: str = "1h", zone: str = "UTC", task: str | None = None
    ) -> pd.DataFrame:
        """How many tracks were at each step, weeks back, with rows or without: one row for every
        bucket and step (buckets as in ``throughput``).

        Columns: bucket (its start, UTC), stage, task_type, then int64: arrivals, departures, left
        (departures that did not complete the task); depth, the tracks at the step as the bucket
        began, and waiting, those of them that nobody worked on; reprocessed, departures whose task
        was completed before the previous one: it was done again, so their arrival is not known.

        Depth is reckoned back from how many are there now: ``depth + arrivals - departures`` is the
        next bucket's depth, and after the last bucket ``backlog``'s total without drifted and
        skipped. Waiting counts the exhausted, and takes a track as worked on in its last attempt
        only. A track that left without completing is gone when it got a row at a later step, else
        at its updated_at. What left no trace is not counted: completed rows without completed_at,
        deleted rows, tracks that were moved back.
        """
        return self._read("flow", since=since, bucket=bucket, zone=zone, task=task)

    def eta(
        self,
        task: str | None = None,
        speed: Mapping[str, float | str] | None = None,
        extra: Mapping[str, int | str] | None = None,
    ) -> pd.DataFrame:
        """When the work that waits at each step will be done: one row per step.

        Columns: stage, task_type, waiting (int64); status: ``growing`` (lately more came than
        was done, by more than chance explains), ``draining`` (else, where work gets done),
        ``empty`` (nothing to do), ``stalled`` (nothing was done for over twice the longest pause
        before) or ``insufficient_history`` (both without any range); clear_p50_seconds,
        clear_p80_seconds, clear_p95_seconds: until as many further completions as wait now;
        clear_lower_seconds and clear_upper_seconds: the 80% range, of which held of the last given
        (int64) held on this queue; empty_p50_seconds and so on: until none waits, arrivals included
        (NaN where that is not to be expected); each p50, p80 and p95 also as a clock time, ``_at``
        (UTC). rate_per_hour, arrivals_per_hour, growth_per_hour (arrivals minus completions) over
        the last window_seconds: 7 days, or 24 hours where these differ by more than chance;
        needed_per_hour, the rate at which a growing queue would stop growing; basis, what the range
        is based on.

        What if? *speed* is how many times as fast a task would be worked on from now on (2: twice
        the workers), *extra* how many tracks more would wait for it now, or a state in which they
        stand there and do not move by themselves, such as ``exhausted`` (were they retried). Then
        every column that this changes is there again with ``if_`` before its name, and
        ``assumption`` says what is supposed (null at other steps; that more gets done at one step
        does not reach the next). Raises InputError for a task or a state that is unknown.

        From the last 45 days (down to 14 where more than a million tasks were done in them),
        counted by five minutes. Who left without completing the task, and who is stuck or
        exhausted, is left out. See ``queue_insights.forecast`` for the method.

        >>> queue.eta(speed={"align": 2}, extra={"align": "exhausted"})
        """
        with self.snapshot() as moment:
            found = self._read("eta", task=task)
            before = steps.step_forecasts(found, moment.as_of, {}, {})
            if not speed and not extra:
                return before
            backlog = self.backlog() if extra else None
            what_if = supposed(list(found["task_type"]), speed, extra, backlog)
            after = steps.step_forecasts(found, moment.as_of, *what_if)
            return steps.beside(before, after, *what_if)

    def eta_end_to_end(self) -> pd.DataFrame:
        """When all tracks that are now at a step will be through the last one: one row.

        Columns: inside (int64: the tracks that wait or are worked on, at any step), status (as
        ``eta`` has it), p50_seconds, p80_seconds, p95_seconds, lower_seconds and upper_seconds (the
        80% range, of which held of given held), p50_at, p80_at, p95_at (UTC), held, given (int64),
        basis. The pipeline is taken as one queue: until the last step has been completed as often
        as tracks are inside.
        """
        with self.snapshot() as moment:
            return steps.end_to_end(fetch(moment.connection, self._end_to_end()), moment.as_of)

    def _end_to_end(self) -> Query:
        self.require("end_to_end")
        with self.snapshot() as moment:
            history = enough(moment.connection, self.schema, moment.as_of)
            since = {"zero": moment.as_of - steps.HISTORY, "start": moment.as_of - history}
            return Query(self.schema.render("eta_end_to_end.sql"), since)

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
        Neighbouring moments share much of what happened next, so 100 rows tell less than 100 coins.
        Raises InputError for an unknown task and for a level that is not between 0 and 1.
        """
        with self.snapshot() as moment:
            found = self._read("eta", task=task)
            return steps.past_ranges(found, moment.as_of, levels, min_waiting)

    def plan_backfill(self, tasks: Tasks = None, **narrow: Any) -> Plan:
        """Insert a pending row for each track that waits without one, max_attempts from the
        pipeline. With a *limit*, for those that workers would take first (the hybrid option)."""
        return self.plan("backfill", tasks=tasks, **narrow)

    def plan_reset(self, tasks: Tasks = None, attempts: str = "refund", **narrow: Any) -> Plan:
        """Make stuck rows pending. *attempts*: ``refund`` the one that was counted when the lost
        worker started, ``keep`` it, or ``zero`` all."""
        return self.plan("reset", tasks=tasks, attempts=attempts, **narrow)

    def plan_retry(self, tasks: Tasks = None, **narrow: Any) -> Plan:
        """Make exhausted and failed rows pending, with fresh attempts."""
        return self.plan("retry", tasks=tasks, **narrow)

    def plan_requeue(self, tasks: Tasks = None, **narrow: Any) -> Plan:
        """Make completed rows pending whose track still stands at their stage (drifted)."""
        return self.plan("requeue", tasks=tasks, **narrow)

    def plan_prune(self, tasks: Tasks = None, status: str = "pending", **narrow: Any) -> Plan:
        """Remove orphans of *status*: ``pending``, or ``failed``, which are evidence."""
        return self.plan("prune", tasks=tasks, status=status, **narrow)

    def plan(self, action: str, counted: bool = True, **given: Any) -> Plan:
        """The plan of an *action*, by its name. One that is not *counted* yet is counted when
        somebody looks at it; to apply it, nobody needs to."""
        self.require(action)
        schema = self._planned_on()
        found = chosen_action(action, schema.variant)
        plan = Plan(self.database, schema, found, parameters(found, **given))
        _ = plan.counts if counted else plan.steps
        return plan

    def _planned_on(self) -> AnySchema:
        """The tables as they are where actions write."""
        if not self.database.separate_writes:
            return self.schema
        with self.database.read(primary=True) as moment:
            return reflect(moment.connection, self.pipeline)

    def runs(self) -> pd.DataFrame:
        """All runs in the ledger, newest first. Columns: run, action, pipeline, state, undoing,
        rows_planned, rows_done, rows_dropped, came_after, rows_undone, rows_kept (Int64),
        started_at, last_batch_at, ended_at, role, host, pid, parameters, planned, error."""
        with self.database.read(primary=True) as moment:
            return ledger.runs(moment.connection)

    def prune_runs(self, age: str | timedelta) -> int:
        """Drop the ledger's entries of runs that ended longer than *age* ago, which can no longer
        be undone; returns how many. Raises InputError for a bad duration."""
        return ledger.drop(self.database, parse_duration(age, "runs: age"))

    def run(self, run: int) -> Run:
        """The run with that number. Raises RunError if there is none."""
        found = Run(self.database, self._planned_on(), run)
        _ = found.row
        return found
