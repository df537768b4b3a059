"""A plan: what an action would do, counted and shown, the token that confirms it, and its start."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from queue_insights.actions import ledger, pace, runs
from queue_insights.actions.definitions import Action, Parameters
from queue_insights.actions.privileges import require
from queue_insights.actions.statements import batch, selection
from queue_insights.database import Database
from queue_insights.errors import InputError, PlanError
from queue_insights.job_schema import JobSchema
from queue_insights.pipeline import Step
from queue_insights.schema import AnySchema, reflect
from queue_insights.sql import Query, unescaped
from queue_insights.sql.frames import fetch

_FIXED = ("database", "pipeline file or table variant", "action, its parameters or its jobs")


@dataclass
class Plan:
    """What *action* would do now. Nothing is written until ``apply``."""

    database: Database
    schema: AnySchema
    action: Action
    parameters: Parameters

    @cached_property
    def steps(self) -> Sequence[Step]:
        """The steps that the action is about. Raises InputError for an unknown task."""
        with self.database.read(primary=True) as moment:
            if isinstance(self.schema, JobSchema):
                self.schema.check_retry(moment.connection)
            return self.schema.steps(moment.connection, self.parameters.tasks)

    @cached_property
    def jobs(self) -> list[str] | None:
        """The ids of the very jobs that the plan shows; None where they are tracks."""
        if self.action.kind != "vendor":
            return None
        with self.database.read(primary=True) as moment:
            return sorted(self._selection("plan_ids.sql").rows(moment.connection).scalars())

    def _selection(self, file: str, **values: Any) -> Query:
        return selection(self.schema, self.action, self.parameters, self.steps, file, **values)

    @cached_property
    def counts(self) -> pd.DataFrame:
        """How many rows it would touch, counted once: one row per step, in pipeline order.

        Columns: stage, task_type, rows, ends_pending and ends_exhausted (int64: what the rows end
        as; 0 for prune, which leaves none).
        """
        with self.database.read(primary=True) as moment:
            return fetch(moment.connection, self._selection("plan_counts.sql"))

    @property
    def rows(self) -> int:
        """How many rows it would touch."""
        return int(self.counts["rows"].sum())

    def __repr__(self) -> str:
        return f"<Plan {self.action.name}: {self.rows:,} rows, token {self.token!r}>"

    @cached_property
    def token(self) -> str:
        """Confirms this plan: the database, the pipeline, the action, its parameters and the
        counts, but not the very rows, which change all the time on a live queue; of jobs, which
        their vendor retries, the very ones."""
        return _token(self._fixed, list(self._counted.values()))

    @property
    def _counted(self) -> dict[str, int]:
        """How many rows of each task a token allows: of jobs, whose kinds come and go, only of
        those that it is about."""
        counts = dict(zip(self.counts["task_type"], map(int, self.counts["rows"]), strict=True))
        return {task: rows for task, rows in counts.items() if rows or self.jobs is None}

    def preview(self, limit: int = 10) -> pd.DataFrame:
        """The first rows it would touch, in order of arrival: id column, title, stage, task_type,
        arrived_at, error_message, and status, attempts, max_attempts as they are and would be
        (``*_after``)."""
        with self.database.read(primary=True) as moment:
            return fetch(moment.connection, self._selection("plan_rows.sql", rows=limit))

    def left_out(self) -> pd.DataFrame:
        """Which of the chosen ids it would not touch: id column, reason. Empty without ids."""
        with self.database.read(primary=True) as moment:
            return fetch(moment.connection, self._selection("plan_left_out.sql"))

    def sql(self) -> str:
        """The statement that does a batch, for each task, as psql takes it: it expects the
        variables run, fence, first and beyond, and the ledger's rows of a run."""
        texts = (batch(self.schema, self.action, self.parameters, step) for step in self.steps)
        return "\n\n".join(f"{unescaped(text)};" for text in texts)

    def command(self, pipeline: str | None = None, ids_from_file: bool = False) -> str:
        """The complete command that applies this plan, read through the *pipeline* file; with
        *ids_from_file* it reads them from FILE, else they stand in it."""
        given: list[str] = [part for t in self.parameters.tasks or () for part in ("--task", t)]
        if self.parameters.older_than is not None:
            seconds = f"{self.parameters.older_than:.6f}".rstrip("0").rstrip(".")
            given += ["--older-than", f"{seconds}s"]
        for name in ("error", "limit", "failure", *self.action.options):
            value = getattr(self.parameters, name)
            if value is not None and value != getattr(Parameters(), name):
                given += [f"--{name}={value}"]
        if pipeline is not None:
            given += ["--pipeline", pipeline]
        given += ["--apply", "--confirm", self.token]
        if not ids_from_file:
            given += [f"--id={id}" for id in self.parameters.ids or ()]
        command = f"queue-insights {self.action.name} {shlex.join(given)}"
        return f"{command} --id - < FILE" if ids_from_file else command

    def apply(
        self, confirm: str | None = None, max_rows: int | None = None, pause: float | None = None
    ) -> runs.Run:
        """Do it, in batches, recorded in the ledger; *confirm* is the token of a plan, or
        *max_rows* bounds an unattended run. *pause* is seconds between batches (default: paced
        so that workers beside it hardly notice).

        Raises InputError for a malformed token or neither of both, PlanError where the frame or
        the counts have changed or max_rows is exceeded (its ``plan`` is the new one), RunError if
        another run of this action is unfinished, Stopped when interrupted.
        """
        name = self.action.name
        if (confirm is None) == (max_rows is None):
            raise InputError(f"{name}: give either the plan's token or max_rows")
        if max_rows is not None and (type(max_rows) is not int or max_rows < 0):
            raise InputError(f"{name}: max_rows: found {max_rows!r}, expected a number of rows")
        now = Plan(self.database, self.schema, self.action, self.parameters)
        try:
            with self.database.read(primary=True) as moment:
                now.schema = reflect(moment.connection, self.schema.pipeline)  # as it is by now
            run = now._begin(None if confirm is None else now._confirmed(confirm), max_rows)
        except PlanError as error:
            error.plan = now
            raise
        return runs.drive(run, 1, pause)

    @cached_property
    def _fixed(self) -> tuple[str, ...]:
        """What a token fixes, in the order of _FIXED."""
        with self.database.read(primary=True) as moment:
            given = {"tasks": self.schema.identity}
            identity = ledger.ask(moment.connection, "identity", **given).one()
        what = [self.action.name, self.parameters.as_json()]
        return (
            _digest([str(part) for part in identity]),
            _digest([self.schema.pipeline.fingerprint, self.schema.variant]),
            _digest(what if self.jobs is None else [*what, self.jobs]),
        )

    def _confirmed(self, token: str) -> dict[str, int]:
        """The counts that *token* allows, if everything else in it is as it is now."""
        name = self.action.name
        listed, *fixed = token.strip().split("-")
        counts = [int(n) for n in listed.split(".") if n.isascii() and n.isdigit()]
        if _token(fixed[:-1], counts) != token.strip() or len(fixed) != len(_FIXED) + 1:
            raise InputError(
                f"{name}: this is not a plan's token; run `queue-insights {name}` without --apply "
                "and copy the one it prints"
            )
        found = zip(_FIXED, fixed[:-1], self._fixed, strict=True)
        changed = [f"the {what} is" for what, planned, now in found if planned != now]
        tasks = [step.task for step in self.steps] if self.jobs is None else list(self._counted)
        if len(counts) != len(tasks):
            changed.append("the steps are")
        if changed:
            raise _refusal(name, f"{changed[0]} not what was planned")
        return dict(zip(tasks, counts, strict=True))

    def _begin(self, planned: dict[str, int] | None, max_rows: int | None) -> runs.Run:
        """Enter a run of at most *planned* rows per task (None: all), and list them, unless there
        are more than was agreed to."""
        schema, action, pipeline = self.schema, self.action, self.schema.pipeline
        about = {"pipeline": pipeline.name, "fingerprint": pipeline.fingerprint}
        about |= {"variant": schema.variant, "action": action.name, **ledger.this_process()}
        # To list a long queue takes its time, and so may another start that this one meets; what
        # is held here is only the new run.
        with (
            ledger.alone(self.database, pipeline.name, action.name),
            self.database.write(lock="30s", statement="0", idle="30s") as connection,
        ):
            require(connection, schema, action)
            ledger.create(connection)
            given = json.dumps(self.parameters.as_json())
            run = ledger.ask(connection, "begin", parameters=given, **about).scalar_one()
            values = {"run": run, "chunk": pace.CHUNK}
            listing = self._selection("list.sql", planned=planned, **values)
            now = {row.task_type: int(row.rows) for row in listing.rows(connection)}
            _accept(action.name, now, planned, max_rows)
            listed = ledger.ask(connection, "listed", run=run).scalars()
            if planned is not None and self.jobs is not None and self.jobs != sorted(listed):
                raise _refusal(action.name, "other jobs used up their attempts meanwhile")
            planned = now if planned is None else planned
            later = sum(max(0, now[task] - planned[task]) for task in planned)
            totals = {"rows_planned": sum(planned.values()), "came_after": later}
            ledger.ask(connection, "accept", run=run, planned=json.dumps(planned), **totals)
        return runs.Run(self.database, schema, run)


def _accept(
    action: str, now: dict[str, int], planned: dict[str, int] | None, max_rows: int | None
) -> None:
    """Raises PlanError if there are more rows now than was agreed to."""
    if max_rows is not None and sum(now.values()) > max_rows:
        raise _refusal(action, f"{sum(now.values())} rows, more than max_rows {max_rows}")
    for task, then in (planned or {}).items():
        if now[task] > then * 1.1 and now[task] > then + 10:
            raise _refusal(action, f"{task} has grown from {then} rows to {now[task]}")


def _refusal(action: str, why: str) -> PlanError:
    return PlanError(f"{action}: nothing was done: {why}; confirm the new plan")


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def _token(fixed: Sequence[str], counts: list[int]) -> str:
    listed = ".".join(map(str, counts))
    return "-".join((listed, *fixed, _digest([*fixed, listed])))
