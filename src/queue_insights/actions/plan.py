"""A plan: what an action would do, counted and shown, and the token that confirms it."""

import hashlib
import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import pandas as pd
import sqlalchemy as sa

from queue_insights import queries
from queue_insights.actions import apply
from queue_insights.actions.definitions import Action, Parameters, selection
from queue_insights.errors import InputError, PlanError
from queue_insights.queue import Queue

_FIXED = ("database", "pipeline file or table variant", "action or its parameters")

_IDENTITY = sa.text("""
    SELECT current_database(), (SELECT oid FROM pg_database WHERE datname = current_database()),
           to_regclass(:tasks)::oid,
           CASE WHEN has_function_privilege('pg_control_system()', 'execute')
                THEN (SELECT system_identifier FROM pg_control_system()) END
""")


@dataclass
class Plan:
    """What *action* would do now. Nothing is written until ``apply``.

    ``counts``: one row per step of the action, in pipeline order: stage, task_type, rows,
    ends_pending and ends_exhausted (what the rows end as; of no meaning, and 0, for prune).
    ``token``: confirms this plan: the database, the pipeline, the action, its parameters and the
    counts, but not the very rows, which change all the time on a live queue.
    """

    queue: Queue
    action: Action
    parameters: Parameters
    counts: pd.DataFrame
    fixed: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many rows it would touch."""
        return int(self.counts["rows"].sum())

    def __repr__(self) -> str:
        return f"<Plan {self.action.name}: {self.rows:,} rows, token {self.token!r}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the counts per step, and the token that confirms them."""
        counts = self.counts.to_html(index=False, border=0)
        title = f"{self.action.name}: {self.rows:,} rows in {self.queue.database.write_name}"
        call = f"plan.apply(confirm={self.token!r})"
        return (
            f"<p><strong>{escape(title)}</strong></p>{counts}"
            f"<p>Nothing is done until <code>{escape(call)}</code></p>"
        )

    @property
    def planned(self) -> dict[str, int]:
        """The rows per task."""
        return {t: int(n) for t, n in zip(self.counts.task_type, self.counts["rows"], strict=True)}

    @cached_property
    def token(self) -> str:
        return _token(self.fixed, list(self.planned.values()))

    def preview(self, limit: int = 10) -> pd.DataFrame:
        """The first rows it would touch, in order of arrival: id column, title, stage, task_type,
        arrived_at, and status, attempts, max_attempts as they are and (``*_after``) would be."""
        query = _sample(self.queue, self.action, self.parameters, limit)
        with self.queue.database.read(primary=True) as moment:
            return queries.fetch(moment.connection, query)

    def command(self, pipeline: str | None = None) -> str:
        """The complete command that applies this plan, read through the *pipeline* file."""
        given: list[str] = [part for t in self.parameters.tasks or () for part in ("--task", t)]
        if self.parameters.older_than is not None:
            seconds = f"{self.parameters.older_than.total_seconds():.6f}".rstrip("0").rstrip(".")
            given += ["--older-than", f"{seconds}s"]
        for name in ("error", "limit", *self.action.options):
            value = getattr(self.parameters, name)
            if value is not None and value != getattr(Parameters(), name):
                given += [f"--{name}={value}"]
        if pipeline is not None:
            given += ["--pipeline", pipeline]
        given += ["--apply", "--confirm", self.token]
        return f"queue-insights {self.action.name} {shlex.join(given)}"

    def apply(
        self,
        confirm: str | None = None,
        max_rows: int | None = None,
        pause: float | None = None,
    ) -> "apply.Run":
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
        queue = Queue(self.queue.database, self.queue.pipeline)  # reads the tables again
        planned = None
        if max_rows is not None:
            if isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 0:
                raise InputError(f"{name}: max_rows: found {max_rows!r}, expected a number of rows")
        else:
            planned = self._confirmed(queue, str(confirm))

        def accept(now: dict[str, int]) -> None:
            if max_rows is not None and sum(now.values()) > max_rows:
                raise self._refusal(
                    queue, f"{sum(now.values())} rows, more than max_rows {max_rows}"
                )
            for task, then in (planned or {}).items():
                if now[task] > then * 1.1 and now[task] > then + 10:
                    raise self._refusal(queue, f"{task} has grown from {then} rows to {now[task]}")

        return apply.start(queue, self.action, self.parameters, planned, accept, pause)

    def _confirmed(self, queue: Queue, token: str) -> dict[str, int]:
        """The counts that *token* allows, if everything else in it is as it is now."""
        fixed, counts = _parse(token, self.action.name)
        with queue.database.read(primary=True) as moment:
            found = _frame(moment.connection, queue, self.action, self.parameters)
        for what, planned, now in zip(_FIXED, fixed, found, strict=True):
            if planned != now:
                raise self._refusal(queue, f"the {what} is not what was planned")
        if len(counts) != len(self.counts):
            raise self._refusal(queue, "the steps are not what was planned")
        return dict(zip(self.counts.task_type, counts, strict=True))

    def _refusal(self, queue: Queue, why: str) -> PlanError:
        error = PlanError(f"{self.action.name}: nothing was done: {why}; confirm the new plan")
        error.plan = make(queue, self.action, self.parameters)
        return error


def make(queue: Queue, action: Action, parameters: Parameters) -> Plan:
    """Count what *action* would do, read where it would write.

    Raises InputError for an unknown task; DatabaseError as every read.
    """
    with queue.database.read(primary=True) as moment:
        counts = queries.fetch(moment.connection, _counts(queue, action, parameters))
        fixed = _frame(moment.connection, queue, action, parameters)
    return Plan(queue, action, parameters, counts, fixed)


def _frame(
    connection: sa.Connection, queue: Queue, action: Action, parameters: Parameters
) -> tuple[str, ...]:
    """What a token fixes, in the order of _FIXED."""
    name = connection.dialect.identifier_preparer.format_table(queue.schema.tasks)
    identity = connection.execute(_IDENTITY, {"tasks": name}).one()
    return (
        _digest([str(part) for part in identity]),
        _digest([queue.pipeline.fingerprint, queue.schema.variant]),
        _digest([action.name, parameters.as_json()]),
    )


def _sample(queue: Queue, action: Action, parameters: Parameters, limit: int) -> queries.Query:
    """The first rows that an action takes, in order of arrival."""
    rows = selection(queue.schema, action, parameters)
    columns = [c for c in rows.c if c.name not in ("position", "id", "track_id")]
    identity = rows.c.track_id.label(queue.schema.tracks.c.id.name)
    order = (rows.c.arrived_at, rows.c.track_id, rows.c.position)
    return sa.select(identity, *columns).order_by(*order).limit(limit)


def _counts(queue: Queue, action: Action, parameters: Parameters) -> queries.Query:
    """One row per step, also where the action takes none of its rows."""
    taken = selection(queue.schema, action, parameters)
    steps = queue.pipeline.select(parameters.tasks)
    listed = sa.values(
        sa.column("position", sa.Integer),
        sa.column("stage", sa.Text),
        sa.column("task_type", sa.Text),
        name="step",
    ).data([(i, step.stage, step.task) for i, step in enumerate(steps)])
    usable = taken.c.attempts_after < taken.c.max_attempts_after
    count = sa.func.count(taken.c.position)
    pending = count.filter(usable) if action.kind != "delete" else sa.literal(0)
    exhausted = count.filter(usable.is_not(True)) if action.kind != "delete" else sa.literal(0)
    return (
        sa.select(
            listed.c.stage,
            listed.c.task_type,
            queries.count(count).label("rows"),
            queries.count(pending).label("ends_pending"),
            queries.count(exhausted).label("ends_exhausted"),
        )
        .select_from(listed.outerjoin(taken, taken.c.position == listed.c.position))
        .group_by(listed.c.position, listed.c.stage, listed.c.task_type)
        .order_by(listed.c.position)
    )


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def _token(fixed: tuple[str, ...], counts: list[int]) -> str:
    listed = ".".join(map(str, counts))
    return "-".join((listed, *fixed, _digest([*fixed, listed])))


def _parse(token: str, action: str) -> tuple[tuple[str, ...], list[int]]:
    listed, *fixed = token.strip().split("-")
    counts = [int(n) for n in listed.split(".") if n.isascii() and n.isdigit()]
    if len(fixed) != len(_FIXED) + 1 or _token(tuple(fixed[:-1]), counts) != token.strip():
        raise InputError(
            f"{action}: this is not a plan's token; run `queue-insights {action}` without --apply "
            "and copy the one it prints"
        )
    return tuple(fixed[:-1]), counts
