"""The five actions: which rows each one takes, what it makes of them, and what narrows it down.

The conditions and the changes themselves are SQL, in actions/sql/actions.sql.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from queue_insights.errors import InputError
from queue_insights.reads import LARGEST, chosen_failure, chosen_ids

Tasks = str | Iterable[str] | None
Age = str | timedelta | None

CHOICES = {"attempts": ("refund", "keep", "zero"), "status": ("pending", "failed")}


@dataclass(frozen=True)
class Action:
    """What ``does`` says, by one ``kind`` of statement; ``options`` are the parameters that only
    this action has."""

    name: str
    does: str
    kind: Literal["insert", "update", "delete", "vendor"]
    options: tuple[str, ...] = ()


_REQUEUE = "make completed rows pending whose track still stands at their stage"
ACTIONS = {
    action.name: action
    for action in (
        Action("backfill", "insert a pending row for each track that waits without one", "insert"),
        Action("reset", "make stuck rows pending again", "update", ("attempts",)),
        Action("retry", "make exhausted and failed rows pending, with fresh attempts", "update"),
        Action("requeue", _REQUEUE, "update"),
        Action("prune", "remove orphans: rows whose track has moved on", "delete", ("status",)),
    )
}
# On a queue of jobs, which knows its own way to retry.
_BY_VENDOR = Action("retry", "have jobs that used up their attempts worked on again", "vendor")


def chosen_action(name: str, variant: str) -> Action:
    """The action of that name, for tables of that *variant*."""
    return _BY_VENDOR if variant == "jobs" else ACTIONS[name]


@dataclass(frozen=True)
class Parameters:
    """What narrows an action down. ``older_than`` is seconds, counted from the last attempt, else
    arrival; ``failure`` names a kind of failure. Of a run that was listed, only the number of ids
    and their digest are known."""

    tasks: Sequence[str] | None = None
    older_than: float | None = None
    error: str | None = None
    limit: int | None = None
    attempts: str = "refund"
    status: str = "pending"
    ids: Sequence[str] | str | None = None
    failure: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As the ledger keeps them, and tokens: hundred thousand ids as their digest."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.ids is not None:
            digest = hashlib.sha256(json.dumps(sorted(self.ids)).encode()).hexdigest()
            given["ids"] = f"{len(self.ids)} ids, sha256 {digest[:16]}"
        return given

    def context(self, action: Action) -> dict[str, Any]:
        """What the templates of *action* are given."""
        return {
            **{"action": action.name, "kind": action.kind},
            **{"error": self.error, "limit": self.limit, "status": self.status},
            **{"ids": self.ids is not None, "failure": self.failure},
            "attempts": self.attempts if "attempts" in action.options else "zero",
            "older_than": self.older_than and timedelta(seconds=self.older_than),
        }


def parameters(
    action: Action,
    tasks: Tasks = None,
    older_than: Age = None,
    error: str | None = None,
    limit: int | None = None,
    ids: Iterable[str] | None = None,
    failure: str | None = None,
    **options: Any,
) -> Parameters:
    """Check what a caller gave. Raises InputError in one line for what does not fit the action."""

    def wrong(name: str, found: object, expected: str) -> InputError:
        return InputError(f"{action.name}: {name}: found {found!r}, expected {expected}")

    if limit is not None and not (type(limit) is int and 1 <= limit <= LARGEST):
        raise wrong("limit", limit, f"a number above zero, at most {LARGEST:,}")
    if error is not None and action.kind == "insert":
        raise InputError(f"{action.name}: error: a track without a row has no error text")
    for name, value in options.items():
        if name not in action.options:
            raise InputError(f"{action.name}: no such parameter {name!r}")
        if value not in CHOICES[name]:
            raise wrong(name, value, f"one of {', '.join(CHOICES[name])}")
    age = None
    if older_than is not None:
        from queue_insights.pipeline import parse_duration

        age = parse_duration(older_than, f"{action.name}: older_than").total_seconds()
    named = (tasks,) if isinstance(tasks, str) else None if tasks is None else tuple(tasks)
    options |= {"ids": chosen_ids(ids), "failure": chosen_failure(failure)}
    return Parameters(named, age, error, limit, **options)
