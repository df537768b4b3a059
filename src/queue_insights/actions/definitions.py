"""The five actions: which rows each one takes, what it makes of them, and what narrows it down.

The conditions and the changes themselves are SQL, in actions/sql/actions.sql.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from queue_insights.errors import InputError
from queue_insights.pipeline import parse_duration
from queue_insights.reads import LARGEST

Tasks = str | Iterable[str] | None
Age = str | timedelta | None

CHOICES = {"attempts": ("refund", "keep", "zero"), "status": ("pending", "failed")}


@dataclass(frozen=True)
class Action:
    """What ``does`` says, by one ``kind`` of statement; ``options`` are the parameters that only
    this action has."""

    name: str
    does: str
    kind: Literal["insert", "update", "delete"]
    options: tuple[str, ...] = ()


ACTIONS = {
    action.name: action
    for action in (
        Action("backfill", "insert a pending row for each track that waits without one", "insert"),
        Action("reset", "make stuck rows pending again", "update", ("attempts",)),
        Action("retry", "make exhausted and failed rows pending, with fresh attempts", "update"),
        Action(
            "requeue",
            "make completed rows pending whose track still stands at their stage",
            "update",
        ),
        Action("prune", "remove orphans: rows whose track has moved on", "delete", ("status",)),
    )
}


@dataclass(frozen=True)
class Parameters:
    """What narrows an action down. ``older_than`` counts from the last attempt, else arrival."""

    tasks: tuple[str, ...] | None = None
    older_than: timedelta | None = None
    error: str | None = None
    limit: int | None = None
    attempts: str = "refund"
    status: str = "pending"

    def as_json(self) -> dict[str, Any]:
        """As the ledger keeps them."""
        older = self.older_than.total_seconds() if self.older_than else None
        tasks = list(self.tasks) if self.tasks else None
        return {**vars(self), "older_than": older, "tasks": tasks}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Parameters":
        older, tasks = data["older_than"], data["tasks"]
        given = {"older_than": timedelta(seconds=older) if older else None}
        return cls(**{**data, **given, "tasks": tuple(tasks) if tasks else None})

    def context(self, action: Action) -> dict[str, Any]:
        """What the templates of *action* are told."""
        attempts = self.attempts if "attempts" in action.options else "zero"
        told = {**vars(self), "attempts": attempts, "action": action.name, "kind": action.kind}
        return {name: value for name, value in told.items() if name != "tasks"}


def parameters(
    action: Action,
    tasks: Tasks = None,
    older_than: Age = None,
    error: str | None = None,
    limit: int | None = None,
    **options: Any,
) -> Parameters:
    """Check what a caller gave. Raises InputError in one line for what the action lacks."""
    if limit is not None and (
        not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LARGEST
    ):
        raise InputError(
            f"{action.name}: limit: found {limit!r}, expected a number above zero, "
            f"at most {LARGEST:,}"
        )
    if error is not None and action.kind == "insert":
        raise InputError(f"{action.name}: error: a track without a row has no error text")
    age = None
    if older_than is not None:
        age = parse_duration(older_than, f"{action.name}: older_than")
    for key, value in options.items():
        if key not in action.options:
            raise InputError(f"{action.name}: no such parameter {key!r}")
        if value not in CHOICES[key]:
            expected = ", ".join(CHOICES[key])
            raise InputError(f"{action.name}: {key}: found {value!r}, expected one of {expected}")
    named = (tasks,) if isinstance(tasks, str) else tuple(tasks) if tasks is not None else None
    return Parameters(named, age, error, limit, **options)
