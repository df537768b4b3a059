"""Values and frames as text: for people on a terminal or a page, JSON and CSV for programs."""

import csv
import json
import math
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from html import escape
from typing import Any

import pandas as pd

_TERMINAL, _PAGE, _NARROW = 48, 200, 30  # characters: cut on a terminal, on a page; wraps there
_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of what a terminal obeys instead of showing
# JupyterLab aligns every cell to the right.
_STYLE = "<style>.records :is(th, td) {text-align: left} .records .n {text-align: right}</style>"


def plain(value: Any) -> Any:
    """A value without numpy's types; None where it is missing or not a finite number."""
    value = value.item() if hasattr(value, "item") else value
    infinite = isinstance(value, float) and not math.isfinite(value)
    return None if infinite or value is pd.NA or value is pd.NaT else value


def cell(name: str, value: Any, zone: tzinfo | None = None, grouped: bool = True) -> str:
    """The value of the column or figure *name* as people read it, at most 200 characters.

    ``-`` stands for a missing value. A number is a duration if *name* ends in ``_seconds``; others
    have their thousands separated and two decimals, unless *grouped* is false. Times are UTC and
    say so with a Z, or they are those of *zone*.
    """
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, datetime):
        if zone is None:
            return value.isoformat(" ", "seconds").replace("+00:00", "Z")
        return f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = str(_json(value))
        return text if len(text) <= _PAGE else text[: _PAGE - 1] + "…"
    if name.endswith("_seconds"):
        return duration(value)
    if not grouped:
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


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
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m"


def visible(text: str, widest: int = _TERMINAL) -> str:
    """*text* on one line without control or direction characters, cut to *widest* columns."""
    text = "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _CONTROL else c
        for c in text[: widest + 1]
    )
    while _width(text) > widest:
        text = text[: max(0, min(len(text) - 1, widest) - 1)] + "…"
    return text


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows as JSON-ready dicts; times are ISO 8601 in UTC, missing values None."""

    def ready(value: Any) -> Any:
        value = plain(value)
        is_time = isinstance(value, datetime)
        return value.isoformat().replace("+00:00", "Z") if is_time else value

    columns = [[ready(value) for value in frame[name].astype(object)] for name in frame]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def to_json(frame: pd.DataFrame) -> str:
    """A list of records; times ISO 8601 in UTC, missing values null."""
    return json.dumps(records(frame), indent=2, ensure_ascii=False, default=str)


def to_csv(frame: pd.DataFrame) -> str:
    """Comma-separated, with a header; text that a spreadsheet would run as a formula gets an
    apostrophe before it."""
    rows = [{k: _disarmed(_json(v)) for k, v in record.items()} for record in records(frame)]
    # Minimal quoting leaves a carriage return bare, and readers take that for a new row.
    bare = any("\r" in str(value) for row in rows for value in row.values())
    cells = pd.DataFrame(rows, columns=frame.columns, dtype=object)
    return cells.to_csv(index=False, quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL)


def _json(value: Any) -> Any:
    return (
        json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, dict | list)
        else value
    )


def _disarmed(value: Any) -> Any:
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula else value


def _with_values(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that people need to see: an empty frame's all, else those with any value."""
    return frame.dropna(axis="columns", how="all") if len(frame) else frame


def to_table(frame: pd.DataFrame) -> str:
    """Aligned columns for a terminal; durations as ``2h 05m``, times in UTC to the second, columns
    without any value left out, control characters shown and not sent to the terminal."""
    columns, aligned = [], []
    for name, values in _with_values(frame).items():
        texts = [visible(cell(str(name), v, grouped=False)) for v in values.astype(object)]
        columns.append([str(name).removesuffix("_seconds"), *texts])
        aligned.append(str.rjust if pd.api.types.is_numeric_dtype(values) else str.ljust)
    widths = [max(map(_width, column)) for column in columns]
    lines = [
        "  ".join(
            align(text, width + len(text) - _width(text))
            for text, width, align in zip(row, widths, aligned, strict=True)
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join(lines if len(frame) else [*lines, "(none)"])


def to_html(frame: pd.DataFrame, caption: str = "", zone: tzinfo = UTC) -> str:
    """An HTML table, its text escaped; times in *zone*, columns without any value left out."""
    columns = [_html_cells(str(name), c, zone) for name, c in _with_values(frame).items()]
    rows = [f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True)]
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    parts = f"{title}<thead>{''.join(rows[:1])}</thead><tbody>{''.join(rows[1:])}</tbody>"
    none = "" if len(frame) else "<p>None.</p>"
    return f'{_STYLE}<table class="records">{parts}</table>{none}'


def _html_cells(name: str, column: "pd.Series[Any]", zone: tzinfo) -> list[str]:
    """The cells of a column, its heading first. Numbers and times carry in ``data-v`` the number
    to sort them by, because their text is for people."""
    values = [plain(value) for value in column.astype(object)]
    texts = [escape(cell(name, value, zone)) for value in values]
    are_times = isinstance(column.dtype, pd.DatetimeTZDtype)
    title = escape(f"{label(name)} ({zone})" if are_times else label(name))
    if not are_times and not pd.api.types.is_numeric_dtype(column):
        long = " class=long" if any(len(text) > _NARROW for text in texts) else ""
        return [f'<th scope="col">{title}</th>', *(f'<td dir="auto"{long}>{t}</td>' for t in texts)]
    keys = [value.timestamp() if isinstance(value, datetime) else value for value in values]
    shown = zip(("" if key is None else key for key in keys), texts, strict=True)
    cells = [f'<td class=n data-v="{key}">{text}</td>' for key, text in shown]
    return [f'<th scope="col" class=n>{title}</th>', *cells]


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "table": to_table,
    "json": to_json,
    "csv": to_csv,
}
