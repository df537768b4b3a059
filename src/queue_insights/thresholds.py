"""Thresholds of a report: ``hidden > 0``, ``oldest_waiting > 2h``, ``by_stage.stuck > 5``."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from queue_insights import show
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

    Of a table's rows the one furthest over the limit is given, named by its step's task or else by
    its first column. Raises InputError for a figure that the report does not show.
    """
    values: dict[str, list[tuple[Any, str | None]]] = {
        name: [(value, None)] for name, value in figures.items()
    }
    for table in tables:
        columns = list(table["columns"])
        named = columns.index("task_type") if "task_type" in columns else 0
        for position, column in enumerate(columns):
            values[f"{table['name']}.{column}"] = [
                (row[position], str(row[named])) for row in table["rows"]
            ]
    found = []
    for threshold in thresholds:
        name = _resolve(threshold, values)
        compare, limit = _COMPARISONS[threshold.sign], threshold.limit
        try:
            # Nothing, where there is no figure to compare, is never over a limit.
            over = [(v, place) for v, place in values[name] if v is not None and compare(v, limit)]
        except TypeError:
            raise InputError(
                f"thresholds: {threshold.text!r}: {name} is text, expected == or !="
            ) from None
        if over:
            furthest = {">": max, "<": min}.get(threshold.sign[0])
            value, place = furthest(over, key=operator.itemgetter(0)) if furthest else over[0]
            breach = {"threshold": threshold.text, "figure": name, "value": value, "where": place}
            found.append(breach)
    return found


def _resolve(threshold: Threshold, values: Mapping[str, Any]) -> str:
    """The figure's full name: a duration's limit says the unit, so its name need not."""
    name, timed = threshold.figure, f"{threshold.figure}{_SECONDS}"
    if name in values and (name.endswith(_SECONDS) or not threshold.is_duration):
        return name
    if name in values:
        problem = f"{name} is not a duration, expected a plain number"
    elif timed in values and threshold.is_duration:
        return timed
    elif timed in values:
        problem = f"{name} is a duration, expected a limit with a unit such as 90s, 2h or 3d"
    else:
        names = [known.removesuffix(_SECONDS) for known in values]
        shown = ", ".join(dict.fromkeys(re.sub(r"\..*", ".COLUMN", known) for known in names))
        hint = nearest(name, names)
        problem = f"unknown figure {name!r}: the report shows {shown or 'none'}{hint}"
    raise InputError(f"thresholds: {threshold.text!r}: {problem}")


def describe(breach: Mapping[str, Any]) -> str:
    """``oldest_waiting > 2h: 13h 40m at align``"""
    place = f" at {breach['where']}" if breach["where"] else ""
    return f"{breach['threshold']}: {show.cell(breach['figure'], breach['value'])}{place}"
