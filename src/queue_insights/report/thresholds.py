"""Thresholds of a report: ``hidden > 0``, ``oldest_waiting > 2h``, ``by_stage.stuck > 5``."""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from queue_insights import formats
from queue_insights.errors import InputError
from queue_insights.pipeline import nearest, parse_duration

_SIGNS = {
    **{">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le},
    **{"==": operator.eq, "!=": operator.ne},
}
_GRAMMAR = re.compile(r"\s*(\w+(?:\.\w+)?)\s*([<>]=?|[=!]=)\s*(\S.*?)\s*", re.ASCII)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")

Table = Mapping[str, Any]  # {"name", "columns", "rows"}, as a notebook showed it


@dataclass(frozen=True)
class Threshold:
    """One comparison; it is breached where it holds. ``figure`` is a key figure's name, or
    TABLE.COLUMN, which is breached if any row is. The limit of a duration is in seconds."""

    text: str
    figure: str
    sign: str
    limit: float | str
    is_duration: bool = False


def parse(text: str) -> Threshold:
    """Raises InputError, in one line, for anything that is not FIGURE SIGN LIMIT."""
    if not (match := _GRAMMAR.fullmatch(text)):
        examples = "hidden > 0, oldest_waiting > 2h or by_stage.stuck > 5"
        raise InputError(f"thresholds: found {text!r}, expected a comparison such as {examples}")
    figure, sign, limit = match.groups()
    if _NUMBER.fullmatch(limit):
        return Threshold(text, figure, sign, float(limit))
    try:
        return Threshold(text, figure, sign, parse_duration(limit).total_seconds(), True)
    except ValueError:
        if sign in ("==", "!="):
            return Threshold(text, figure, sign, limit.strip("'\""))
        expected = "a number, or a duration such as 90s, 2h or 3d"
        problem = f"{text!r}: found the limit {limit!r}, expected {expected}"
        raise InputError(f"thresholds: {problem}") from None


def breaches(
    thresholds: Sequence[Threshold], figures: Mapping[str, Any], tables: Sequence[Table]
) -> list[dict[str, Any]]:
    """The thresholds that are breached: threshold, figure, value, and for a table where (a row).

    Of a table's rows the one furthest over the limit is given, named by its step's task or else by
    its first column. Raises InputError for a figure that the report does not show.
    """
    values: dict[str, list[tuple[Any, str | None]]]
    values = {name: [(value, None)] for name, value in figures.items()}
    for table in tables:
        names = list(table["columns"])
        row_name = names.index("task_type") if "task_type" in names else 0
        for i, name in enumerate(names):
            cells = ((row[i], str(row[row_name])) for row in table["rows"])
            values[f"{table['name']}.{name}"] = [*cells]
    found = []
    for threshold in thresholds:
        text, figure = threshold.text, _full_name(threshold, values)
        # A missing value is never over a limit.
        known = [(value, where) for value, where in values[figure] if value is not None]
        try:
            over = [pair for pair in known if _SIGNS[threshold.sign](pair[0], threshold.limit)]
        except TypeError:
            problem = f"{figure} is text, expected == or !="
            raise InputError(f"thresholds: {text!r}: {problem}") from None
        if threshold.sign not in ("==", "!="):
            over.sort(key=operator.itemgetter(0), reverse=threshold.sign.startswith(">"))
        for value, where in over[:1]:
            breach = {"threshold": text, "figure": figure, "value": value, "where": where}
            found.append(breach)
    return found


def _full_name(threshold: Threshold, values: Mapping[str, Any]) -> str:
    """The figure's full name: a duration's limit says the unit, so the name of its figure need not
    end in ``_seconds``."""
    name = threshold.figure
    timed = f"{name.removesuffix('_seconds')}_seconds"
    if (full := timed if threshold.is_duration else name) in values:
        return full
    if name in values:
        problem = f"{name} is not a duration, expected a plain number"
    elif timed in values:
        problem = f"{name} is a duration, expected a limit with a unit such as 90s, 2h or 3d"
    else:
        names = [known.removesuffix("_seconds") for known in values]
        shown = ", ".join(dict.fromkeys(re.sub(r"\..*", ".COLUMN", known) for known in names))
        hint = nearest(name, names)
        problem = f"unknown figure {name!r}: the report shows {shown or 'none'}{hint}"
    raise InputError(f"thresholds: {threshold.text!r}: {problem}")


def describe(breach: Mapping[str, Any]) -> str:
    """``oldest_waiting > 2h: 13h 40m at align``"""
    place = f" at {breach['where']}" if breach["where"] else ""
    return f"{breach['threshold']}: {formats.cell(breach['figure'], breach['value'])}{place}"
