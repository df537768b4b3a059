"""The table of reads: what can be asked of a queue, for ``Queue``, the commands and the docs.

Nothing heavy is imported here, so that the command line starts at once.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from queue_insights.errors import InputError

STATES = (
    *("missing", "pending", "retryable", "backing_off", "running", "stuck", "exhausted"),
    *("drifted", "skipped", "blocked", "other"),
)
LARGEST = 2**31 - 1  # rows of a list or an action


@dataclass(frozen=True)
class Option:
    """One parameter of a read, as a command takes it: a flag if its default is False, a number if
    ``metavar`` is N, else text."""

    name: str
    default: Any = None
    metavar: str = ""
    help: str = ""


@dataclass(frozen=True)
class Read:
    """One question that can be asked of a queue: a method of ``Queue``, a command, and a file in
    sql/, all three of this name.

    ``counts`` are the columns that number rows; ``brief`` are the columns that a table in a
    terminal shows, where there are too many.
    """

    name: str
    help: str
    options: tuple[Option, ...] = ()
    counts: tuple[str, ...] = ()
    brief: tuple[str, ...] = ()


def chosen_ids(ids: Iterable[Any] | str | None) -> list[str] | None:
    """The ids that a list or an action is narrowed down to, each once; None where it is not: an
    empty selection chooses nothing. Raises InputError for a value that is no id."""
    if ids is None:
        return None
    texts = [ids] if isinstance(ids, str) else [str(i) if type(i) is int else i for i in ids]
    for text in texts:
        if not isinstance(text, str) or "\0" in text:
            raise InputError(f"ids: found {text!r}, expected the id of a track")
    return list(dict.fromkeys(texts))


def chosen_failure(failure: str | None) -> str | None:
    """The kind of failure that a list or an action is narrowed down to. Raises InputError."""
    if failure is not None and not re.fullmatch("[0-9a-f]{8}", str(failure)):
        expected = "expected the 8 hex digits that `queue-insights failures` prints"
        raise InputError(f"failure: found {failure!r}, {expected}")
    return failure


TASK = Option("task", None, "TASK", "Only this task.")
LIMIT, FIFTY = (Option("limit", rows, "N", "At most so many rows.") for rows in (None, 50))
WEEK, MONTHS = (Option("since", age, "AGE", "How far back.") for age in ("7D", "60D"))
BUCKET = Option("bucket", "1h", "LENGTH", "15min, 1h, 1D, 1W.")
ZONE = Option("zone", "UTC", "NAME", "Of whole days.")
STATE = Option("state", None, "STATE", "Only those in this state.")
SOURCES = Option("sources", False, help="Also ask each dashboard source (slow).")
IDS = Option("ids", None, "ID")
FAILURE = Option("failure", None, "ID", "Only failed rows of this kind, as `failures` names it.")
LISTED = (TASK, LIMIT, IDS, FAILURE)
SPEED = Option("speed", None, "STEP=FACTOR", "What if it worked so many times as fast?")
EXTRA = Option("extra", None, "STEP=N|STATE", "What if so many more waited, or all in a state?")
END_TO_END = Option("end_to_end", False, help="When all are through the last step.")

_READS = (
    Read(
        "backlog",
        "How much work waits at each step, by state.",
        counts=("total", *STATES, "eligible", "waiting", "visible"),
    ),
    Read(
        "audit",
        "What dashboards can see of the backlog: visible, hidden or overstated.",
        (SOURCES,),
        counts=("eligible", "visible", "hidden", "orphans"),
    ),
    Read("missing", "Tracks that wait without a task row, the longest first.", LISTED),
    Read("upcoming", "Tracks that workers would select next.", (TASK, FIFTY, *LISTED[2:])),
    Read("tasks", "Tracks at a step and their rows, in one state or any.", (STATE, *LISTED)),
    Read("orphans", "Pending and failed rows whose track has moved on.", LISTED),
    Read("track", "All that one track has of each step.", (Option("id", ..., "ID"),)),
    Read(
        "failures",
        "Why tasks fail: the messages of failed rows by kind, most rows first.",
        (Option("since", "1D", "AGE", "New are kinds that failed only since."), TASK, LIMIT),
        counts=("rows", "exhausted", "retryable", "last_hour", "last_day", "last_week"),
    ),
    Read(
        "throughput",
        "What came, was done and failed at each step, per bucket of time.",
        (WEEK, BUCKET, ZONE, TASK),
        counts=("arrivals", "completions", "failures"),
    ),
    Read(
        "durations",
        "How long tasks ran and tracks waited, and the oldest that waits.",
        (WEEK, TASK),
        counts=("completions", "waiting"),
    ),
    Read(
        "flow",
        "How many tracks were at each step, weeks back, with rows or without.",
        (MONTHS, BUCKET, ZONE, TASK),
        counts=("arrivals", "departures", "left", "depth", "waiting", "reprocessed"),
    ),
    Read(
        "eta",
        "When the work that waits will be done, as a range, and how such ranges have held.",
        (TASK, SPEED, EXTRA, END_TO_END),
        counts=("waiting", "moving"),
        brief=(
            *("stage", "task_type", "waiting", "status", "rate_per_hour", "growth_per_hour"),
            *("clear_p50_seconds", "clear_lower_seconds", "clear_upper_seconds", "clear_p80_at"),
            *("empty_p50_seconds", "empty_lower_seconds", "empty_upper_seconds", "held", "given"),
            *("if_waiting", "if_status", "if_clear_p50_seconds", "if_clear_lower_seconds"),
            *("if_clear_upper_seconds", "assumption"),
        ),
    ),
)
READS = {read.name: read for read in _READS}
