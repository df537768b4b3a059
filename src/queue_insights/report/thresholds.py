"""Thresholds of a report: ``hidden > 0``, ``oldest_waiting > 2h``, ``by_stage.stuck > 5``."""

import contextlib
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


@dataclass(frozen=True)
class Threshold:
    """One comparison, breached where it holds. ``figure`` is the full name of a key figure, or
    TABLE.COLUMN, which is breached if any row is. The limit of a duration is in seconds."""

    text: str
    figure: str
    sign: str
    limit: float


def parse(text: str) -> Threshold:
    """Raises InputError, in one line, for anything that is not FIGURE SIGN LIMIT."""
    match = _GRAMMAR.fullmatch(text)
    figure, sign, limit = match.groups() if match else ("", "", "")
    if _NUMBER.fullmatch(limit):
        return Threshold(text, figure, sign, float(limit))
    with contextlib.suppress(ValueError):
        seconds = parse_duration(limit).total_seconds()
        return Threshold(text, f"{figure.removesuffix('_seconds')}_seconds", sign, seconds)
    examples = "hidden > 0, oldest_waiting > 2h or by_stage.stuck > 5"
    raise InputError(f"thresholds: found {text!r}, expected a comparison such as {examples}")


def breaches(
    thresholds: Sequence[Threshold], figures: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The thresholds that are breached: threshold, figure, value, and for a table where (a row).

    Of a table's rows the one furthest over the limit is given, named by its step's task or else by
    its first column. Raises InputError for a figure that the report does not show, or that is text.
    """
    values: dict[str, list[Any]] = {name: [(value, None)] for name, value in figures.items()}
    for table in tables:
        names = list(table["columns"])
        task = names.index("task_type") if "task_type" in names else 0
        for i, name in enumerate(names):
            values[f"{table['name']}.{name}"] = [(row[i], str(row[task])) for row in table["rows"]]
    found = []
    for each in thresholds:
        if each.figure not in values:
            shown = dict.fromkeys(re.sub(r"\..*", ".COLUMN", name) for name in values)
            shows = f"the report shows {', '.join(shown) or 'none'}{nearest(each.figure, values)}"
            raise InputError(f"thresholds: {each.text!r}: unknown figure {each.figure!r}: {shows}")
        known = [pair for pair in values[each.figure] if pair[0] is not None]
        if not all(isinstance(value, int | float) for value, _ in known):
            raise InputError(f"thresholds: {each.text!r}: {each.figure} is no number")
        known.sort(key=operator.itemgetter(0), reverse=each.sign.startswith(">"))
        for value, where in known:
            if _SIGNS[each.sign](value, each.limit):
                breach = {"threshold": each.text, "figure": each.figure}
                found.append({**breach, "value": value, "where": where})
                break
    return found


def describe(breach: Mapping[str, Any]) -> str:
    """``oldest_waiting > 2h: 13h 40m at align``"""
    place = f" at {breach['where']}" if breach["where"] else ""
    return f"{breach['threshold']}: {formats.cell(breach['figure'], breach['value'])}{place}"
