"""Values and frames as text: for people on a terminal or a page, JSON and CSV for programs."""

import csv
import json
import math
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader

_TERMINAL, _PAGE = 48, 200  # characters: longer text is cut on a terminal, on a page
_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of what a terminal obeys instead of showing


def plain(value: Any) -> Any:
    """A value without numpy's types; None where it is missing or not a finite number."""
    value = value.item() if hasattr(value, "item") else value
    infinite = isinstance(value, float) and not math.isfinite(value)
    return None if infinite or value is pd.NA or value is pd.NaT else value


def cell(name: str, value: Any, zone: tzinfo | None = None, grouped: bool = True) -> str:
    """The value of the column or figure *name* as people read it, at most 200 characters.

    ``-`` stands for a missing value. A number is a duration if *name* ends in ``_seconds``; others
    have their thousands separated and two decimals, unless *grouped* is false or it is an id.
    Times are those of *zone*, or else UTC and say so with a Z.
    """
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone(zone or UTC):%Y-%m-%d %H:%M:%S}" + ("" if zone else "Z")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("_seconds"):
            return duration(value)
        if not grouped or name in ("id", "run") or name.endswith("_id"):
            return str(value)
        return f"{value:{',d' if isinstance(value, int) else ',.2f'}}"
    return _cut(str(_nested(value)), _PAGE)


def label(name: str) -> str:
    """A column's or figure's name for people; its unit is in the value."""
    return name.removesuffix("_seconds").replace("_", " ")


def iso(time: datetime) -> str:
    """ISO 8601 in UTC, to the second: ``2026-11-22T10:30:00Z``."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """``45s``, ``12m``, ``2h 05m``, ``3d 04h``: two units are enough to act on."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 60:
        return f"{seconds:.0f}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m"


def visible(text: str, widest: int = _TERMINAL) -> str:
    """*text* on one line without control or direction characters, cut to *widest* of them."""
    shown = "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _CONTROL else c
        for c in text[: widest + 1]
    )
    return _cut(shown, widest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows as JSON-ready dicts; times are ISO 8601 in UTC, missing values None."""

    def ready(value: Any) -> Any:
        value = plain(value)
        is_time = isinstance(value, datetime)
        return value.isoformat().replace("+00:00", "Z") if is_time else value

    rows = frame.astype(object).itertuples(index=False, name=None)
    return [dict(zip(frame.columns, map(ready, row), strict=True)) for row in rows]


def to_json(frame: pd.DataFrame) -> str:
    """A list of ``records``."""
    return json.dumps(records(frame), indent=2, ensure_ascii=False, default=str)


def to_csv(frame: pd.DataFrame, header: bool = True) -> str:
    """Comma-separated ``records``, under a *header* unless it is false; text that a spreadsheet
    would run as a formula gets an apostrophe before it."""

    def disarmed(value: Any) -> Any:
        is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        return f"'{value}" if is_formula else _nested(value)

    rows = [[disarmed(value) for value in record.values()] for record in records(frame)]
    cells = pd.DataFrame(rows, columns=frame.columns, dtype=object)
    text = cells.to_csv(index=False, header=header)
    if "\r" in text:  # minimal quoting leaves it bare, and readers take that for a new row
        return cells.to_csv(index=False, header=header, quoting=csv.QUOTE_ALL)
    return text


def _nested(value: Any) -> Any:
    """A list or mapping as JSON; other values as they are."""
    is_nested = isinstance(value, dict | list)
    return json.dumps(value, ensure_ascii=False, default=str) if is_nested else value


def _with_values(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that people need to see: an empty frame's all, else those with any value."""
    return frame.dropna(axis="columns", how="all") if len(frame) else frame


def to_table(frame: pd.DataFrame) -> str:
    """Aligned columns for a terminal; columns without any value are left out, and control
    characters are shown, not sent to the terminal."""
    columns = []
    for name, values in _with_values(frame).items():
        texts = [visible(cell(str(name), v, grouped=False)) for v in values.astype(object)]
        texts.insert(0, str(name).removesuffix("_seconds"))
        widest = max(map(len, texts))
        align = str.rjust if pd.api.types.is_numeric_dtype(values) else str.ljust
        columns.append([align(text, widest) for text in texts])
    lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
    return "\n".join(lines if len(frame) else [*lines, "(none)"])


def change(name: str, by: float) -> str:
    """``+12`` or ``-1h 05m``: by how much a figure has changed; nothing where it has not."""
    return f"{'+' if by > 0 else ''}{cell(name, by)}" if by else ""


def to_html(
    frame: pd.DataFrame,
    caption: str = "",
    zone: tzinfo = UTC,
    changes: Mapping[tuple[int, str], float] | None = None,
) -> str:
    """An HTML table, its text escaped; times in *zone*, columns without any value left out. Beside
    a cell, named by the number of its row and its column, stands by how much it has changed. Under
    a table of steps stand the sums of its counts."""
    shown, titles, columns, sums = _with_values(frame), [], [], []
    for name, values in shown.items():
        is_time = isinstance(values.dtype, pd.DatetimeTZDtype)
        kind = "t" if is_time else "n" if _is_number(values) else ""
        titles.append((label(str(name)) + (f" ({zone})" if is_time else ""), kind))
        changed = [(changes or {}).get((row, str(name)), 0) for row in range(len(frame))]
        told = [(change(str(name), by), "worse" if by > 0 else "better") for by in changed]
        texts = [(cell(str(name), v, zone), plain(v)) for v in values.astype(object)]
        columns.append([(*each, *why) for each, why in zip(texts, told, strict=True)])
        is_count = pd.api.types.is_integer_dtype(values)
        sums.append(cell(str(name), values.sum()) if is_count else "")
    rows = [*zip(*columns, strict=True)]
    # Of steps, those that start with one: lists of tracks start with an id.
    is_of_steps = len(frame) > 1 and shown.columns[0] in ("stage", "task_type") and any(sums)
    template = TEMPLATES.get_template("table.html.j2")
    total = sums[1:] if is_of_steps else []
    return template.render(caption=caption, titles=titles, rows=rows, sums=total)


def _is_number(values: pd.Series) -> bool:
    is_truth = pd.api.types.is_bool_dtype(values)
    return pd.api.types.is_numeric_dtype(values) and not is_truth


FORMATS = {"table": to_table, "json": to_json, "csv": to_csv}
# Of all pages and mails.
TEMPLATES = Environment(
    loader=PackageLoader("queue_insights"),
    autoescape=lambda name: "html" in str(name),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {"label": label, "cell": cell, "change": change}
