"""The five actions: which rows each one takes, and what it makes of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa

from queue_insights.errors import InputError
from queue_insights.pipeline import Step, parse_duration
from queue_insights.schema import Schema
from queue_insights.states import interval, orphaned, standing

Columns = Mapping[str, sa.ColumnElement[Any]]  # a task row's columns by key
Attempts = Literal["refund", "keep", "zero"]

# What the conditions and the changes below read of a task row.
ROW_KEYS = ("id", "status", "attempts", "max_attempts", "last_attempt_at", "error_message")


@dataclass(frozen=True)
class Parameters:
    """What narrows an action down. ``older_than`` counts from the last attempt, else arrival."""

    tasks: tuple[str, ...] | None = None
    older_than: timedelta | None = None
    error: str | None = None
    limit: int | None = None
    attempts: Attempts = "refund"
    status: Literal["pending", "failed"] = "pending"

    def as_json(self) -> dict[str, Any]:
        older = self.older_than.total_seconds() if self.older_than else None
        return {
            **vars(self),
            "older_than": older,
            "tasks": list(self.tasks) if self.tasks else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Parameters":
        older, tasks = data["older_than"], data["tasks"]
        return cls(
            **{
                **data,
                "older_than": timedelta(seconds=older) if older else None,
                "tasks": tuple(tasks) if tasks else None,
            }
        )


Takes = Callable[[Columns, sa.ColumnElement[str] | None, Parameters], sa.ColumnElement[bool]]


@dataclass(frozen=True)
class Action:
    """``takes`` is the condition on a (track, row) pair, given its state where it stands at its
    step (orphans have none); ``makes`` the columns that are set in the row."""

    name: str
    does: str
    kind: Literal["insert", "update", "delete"]
    takes: Takes
    makes: Callable[[Columns, Step, Parameters], dict[str, Any]]
    options: tuple[str, ...] = ()

    @property
    def of_orphans(self) -> bool:
        return self.kind == "delete"

    def parameters(
        self,
        tasks: Any = None,
        older_than: object = None,
        error: str | None = None,
        limit: int | None = None,
        **options: Any,
    ) -> Parameters:
        """Check what a caller gave. Raises InputError in one line for what the action lacks."""
        if limit is not None and (
            not isinstance(limit, int) or isinstance(limit, bool) or limit < 1
        ):
            raise InputError(f"{self.name}: limit: found {limit!r}, expected a number above zero")
        if error is not None and self.kind == "insert":
            raise InputError(f"{self.name}: error: a track without a row has no error text")
        age = None
        if older_than is not None:
            try:
                age = parse_duration(older_than)
            except ValueError as problem:
                raise InputError(
                    f"{self.name}: older_than: found {older_than!r}, {problem}"
                ) from None
        choices = {"attempts": ("refund", "keep", "zero"), "status": ("pending", "failed")}
        for key, value in options.items():
            if key not in self.options:
                raise InputError(f"{self.name}: no such parameter {key!r}")
            if value not in choices[key]:
                expected = ", ".join(choices[key])
                raise InputError(f"{self.name}: {key}: found {value!r}, expected one of {expected}")
        named = (tasks,) if isinstance(tasks, str) else tuple(tasks) if tasks is not None else None
        return Parameters(named, age, error, limit, **options)


def _attempts(how: str) -> Callable[[Columns, Step, Parameters], dict[str, Any]]:
    def makes(row: Columns, step: Step, parameters: Parameters) -> dict[str, Any]:
        chosen = parameters.attempts if how == "chosen" else "zero"
        changes: dict[str, Any] = {"status": "pending", "next_retry_at": sa.null()}
        if chosen == "keep":
            return changes
        # A row without a usable limit would be exhausted whatever its attempts are.
        usable = row["max_attempts"] >= 1
        changes["max_attempts"] = sa.case((usable, row["max_attempts"]), else_=step.max_attempts)
        refunded = sa.func.greatest(sa.func.coalesce(row["attempts"], 0) - 1, 0)
        return changes | {"attempts": refunded if chosen == "refund" else sa.literal(0)}

    return makes


def _again(row: Columns, step: Step, parameters: Parameters) -> dict[str, Any]:
    cleared = {"completed_at": sa.null(), "processing_duration_ms": sa.null()}
    return _attempts("zero")(row, step, parameters) | cleared


def _nothing(row: Columns, step: Step, parameters: Parameters) -> dict[str, Any]:
    return {}


def _in_state(*names: str) -> Takes:
    def takes(
        row: Columns, state: sa.ColumnElement[str] | None, parameters: Parameters
    ) -> sa.ColumnElement[bool]:
        return sa.false() if state is None else state.in_(names)

    return takes


def _failed_or_exhausted(
    row: Columns, state: sa.ColumnElement[str] | None, parameters: Parameters
) -> sa.ColumnElement[bool]:
    failed = sa.and_(
        row["status"] == "failed", _in_state("retryable", "backing_off")(row, state, parameters)
    )
    return sa.or_(_in_state("exhausted")(row, state, parameters), failed)


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "backfill",
            "insert a pending row for each track that waits without one",
            "insert",
            _in_state("missing"),
            _nothing,
        ),
        Action(
            "reset",
            "make stuck rows pending again",
            "update",
            _in_state("stuck"),
            _attempts("chosen"),
            ("attempts",),
        ),
        Action(
            "retry",
            "make exhausted and failed rows pending, with fresh attempts",
            "update",
            _failed_or_exhausted,
            _attempts("zero"),
        ),
        Action(
            "requeue",
            "make completed rows pending whose track still stands at their stage",
            "update",
            _in_state("drifted"),
            _again,
        ),
        Action(
            "prune",
            "remove orphans: rows whose track has moved on",
            "delete",
            lambda row, state, parameters: row["status"] == parameters.status,
            _nothing,
            ("status",),
        ),
    )
}


def condition(
    action: Action,
    parameters: Parameters,
    row: Columns,
    state: sa.ColumnElement[str] | None,
    arrived_at: sa.ColumnElement[Any],
) -> sa.ColumnElement[bool]:
    """Whether *action* takes this row, its filters included."""
    conditions = [action.takes(row, state, parameters)]
    if parameters.older_than is not None:
        since = sa.func.coalesce(row["last_attempt_at"], arrived_at)
        conditions.append(since < sa.func.now() - interval(parameters.older_than))
    if parameters.error is not None:
        conditions.append(row["error_message"].icontains(parameters.error, autoescape=True))
    return sa.and_(*conditions)


def candidates(
    schema: Schema, action: Action, parameters: Parameters, step: Step, whole: bool = False
) -> sa.Select[Any]:
    """The rows of *step* that *action* takes: ``id`` (of the task row, or of the track where a row
    is to be made), track_id, title, stage, task_type, arrived_at, and ROW_KEYS as ``row_KEY``."""
    if action.of_orphans:
        found = orphaned(schema, step, ROW_KEYS).subquery("found")
    else:
        found = standing(schema, step, ROW_KEYS, whole).subquery("found")
    row = {key: found.c[f"row_{key}"] for key in ROW_KEYS}
    identity = found.c.track_id if action.kind == "insert" else row["id"]
    return sa.select(identity.label("id"), *found.c).where(
        condition(action, parameters, row, found.c.get("state"), found.c.arrived_at)
    )


def selection(
    schema: Schema, action: Action, parameters: Parameters, whole: bool = False
) -> sa.FromClause:
    """All rows that *action* takes, within its limit: ``position`` (of the step among those asked
    for), id, track_id, title, stage, task_type, arrived_at, and status, attempts and max_attempts
    as they are and (``KEY_after``) as they would be."""
    selects = []
    for position, step in enumerate(schema.pipeline.select(parameters.tasks)):
        found = candidates(schema, action, parameters, step, whole).subquery("candidate")
        row = {key: found.c[f"row_{key}"] for key in ROW_KEYS}
        after = _ends_as(action, parameters, row, step)
        selects.append(
            sa.select(
                sa.literal_column(str(position), sa.Integer()).label("position"),
                *(found.c[name] for name in ("id", "track_id", "title", "stage", "task_type")),
                found.c.arrived_at,
                *(row[key].label(key) for key in after),
                *(sa.type_coerce(v, row[k].type).label(f"{k}_after") for k, v in after.items()),
            )
        )
    rows = sa.union_all(*selects).subquery("listed")
    if parameters.limit is None:
        return rows
    order = (rows.c.arrived_at, rows.c.track_id, rows.c.position)
    return sa.select(rows).order_by(*order).limit(parameters.limit).subquery("first")


def _ends_as(action: Action, parameters: Parameters, row: Columns, step: Step) -> Columns:
    """What a row is after the action: status, attempts, max_attempts."""
    if action.kind == "insert":
        after: dict[str, Any] = {
            "status": "pending",
            "attempts": 0,
            "max_attempts": step.max_attempts,
        }
    else:
        after = {key: row[key] for key in ("status", "attempts", "max_attempts")}
        after |= action.makes(row, step, parameters)
    return {key: after[key] for key in ("status", "attempts", "max_attempts")}
