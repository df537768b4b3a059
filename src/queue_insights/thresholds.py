"""Thresholds of a report: ``hidden > 0``, ``oldest_waiting > 2h``, ``by_stage.stuck > 5``."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from queue_insights import formats
from queue_insights.errors import InputError
from queue_insights.pipeline import nearest, parse_duration

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_GRAMMAR = re.compile(
    r"\s*(?P<figure>[a-z0-9_]+(?:\.[a-z0-9_]+)?)\s*(?P<sign>[<>]=?|[=!]=)\s*(?P<limit>\S.*?)\s*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_SECONDS = "_seconds"

Table = Mapping[str, Any]  # {"name", "columns", "rows"}, as a notebook showed it


@dataclass(frozen=True)
class Threshold:
    """One comparison; it is breached where it holds. ``figure`` is a key figure's name, or
    TABLE.COLUMN, which is breached if any row is."""

    text: str
    figure: str
    sign: str
    limit: float | str
    is_duration: bool

    def breached_by(self, value: Any) -> bool:
        """Whether *value* is over the limit; nothing (no figure to compare) never is."""
        return value is not None and _COMPARISONS[self.sign](value, self.limit)


def parse(text: str) -> Threshold:
    """Raises InputError, in one line, for anything that is not FIGURE SIGN LIMIT."""
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise InputError(
            f"thresholds: found {text!r}, expected a comparison such as hidden > 0, "
            "oldest_waiting > 2h or by_stage.stuck > 5"
        )
    sign, limit = match["sign"], match["limit"]
    if _NUMBER.fullmatch(limit):
        return Threshold(text, match["figure"], sign, float(limit), False)
    try:
        seconds = parse_duration(limit).total_seconds()
    except ValueError:
        if sign in ("==", "!="):
            return Threshold(text, match["figure"], sign, limit.strip("'\""), False)
        raise InputError(
            f"thresholds: {text!r}: found the limit {limit!r}, "
            "expected a number, or a duration such as 90s, 2h or 3d"
        ) from None
    return Threshold(text, match["figure"], sign, seconds, True)


def breaches(
    thresholds: Sequence[Threshold], figures: Mapping[str, Any], tables: Sequence[Table]
) -> list[dict[str, Any]]:
    """The thresholds that are breached: threshold, figure, value, and for a table where (a row).

    Of a table's rows the one furthest over the limit is given. Raises InputError for a figure that
    the report does not show.
    """
    values: dict[str, list[tuple[Any, str | None]]] = {
        name: [(value, None)] for name, value in figures.items()
    }
    for table in tables:
        for position, column in enumerate(table["columns"]):
            values[f"{table['name']}.{column}"] = [
                (row[position], _place(table, row)) for row in table["rows"]
            ]
    found = []
    for threshold in thresholds:
        name = _resolve(threshold, values)
        over = [(v, place) for v, place in values[name] if _over(threshold, name, v)]
        if over:
            value, place = _worst(threshold, over)
            breach = {"threshold": threshold.text, "figure": name, "value": value, "where": place}
            found.append(breach)
    return found


def _resolve(threshold: Threshold, values: Mapping[str, Any]) -> str:
    """The figure's full name: a duration's limit says the unit, so its name need not."""
    name = threshold.figure
    timed = f"{name}{_SECONDS}"
    if timed in values and name not in values:
        if not threshold.is_duration:
            raise InputError(
                f"thresholds: {threshold.text!r}: {name} is a duration, "
                "expected a limit with a unit such as 90s, 2h or 3d"
            )
        return timed
    if name not in values:
        names = [known.removesuffix(_SECONDS) for known in values]
        top = [known for known in names if "." not in known]
        tables = sorted({known.split(".")[0] for known in names if "." in known})
        raise InputError(
            f"thresholds: {threshold.text!r}: unknown figure {name!r}: the report shows "
            f"{', '.join([*top, *(f'{table}.COLUMN' for table in tables)]) or 'none'}"
            f"{nearest(name, names)}"
        )
    if threshold.is_duration and not name.endswith(_SECONDS):
        raise InputError(
            f"thresholds: {threshold.text!r}: {name} is not a duration, expected a plain number"
        )
    return name


def _over(threshold: Threshold, name: str, value: Any) -> bool:
    try:
        return threshold.breached_by(value)
    except TypeError:
        raise InputError(
            f"thresholds: {threshold.text!r}: {name} is text, expected == or !="
        ) from None


def _worst(threshold: Threshold, over: Sequence[tuple[Any, str | None]]) -> tuple[Any, str | None]:
    if threshold.sign.startswith(">"):
        return max(over, key=lambda pair: pair[0])
    if threshold.sign.startswith("<"):
        return min(over, key=lambda pair: pair[0])
    return over[0]


def _place(table: Table, row: Sequence[Any]) -> str:
    """What names a row: its step's task, or its first column."""
    columns = list(table["columns"])
    return str(row[columns.index("task_type") if "task_type" in columns else 0])


def describe(breach: Mapping[str, Any]) -> str:
    """``oldest_waiting > 2h: 13h 40m at align``"""
    value = breach["value"]
    if isinstance(value, float) and breach["figure"].endswith(_SECONDS):
        value = formats.duration(value)
    elif isinstance(value, int):
        value = f"{value:,}"
    place = f" at {breach['where']}" if breach["where"] else ""
    return f"{breach['threshold']}: {value}{place}"
