"""Frames as text: a table for people, JSON and CSV for programs."""

import csv
import json
import math
import unicodedata
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pandas as pd

_WIDEST = 48  # cells of a table are cut there; json and csv are never cut


def to_json(frame: pd.DataFrame) -> str:
    """A list of records; times ISO 8601 UTC, missing values null."""
    return json.dumps(records(frame), indent=2, ensure_ascii=False, default=str)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows as JSON-ready dicts."""
    columns = [[_plain(value) for value in frame[name].astype(object)] for name in frame]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list):
        return value
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.item() if hasattr(value, "item") else value


def to_csv(frame: pd.DataFrame) -> str:
    """Comma-separated, with a header; text that a spreadsheet would run as a formula is
    prefixed with an apostrophe."""
    rows = [{k: _cell(v) for k, v in record.items()} for record in records(frame)]
    # Minimal quoting leaves a carriage return bare, and readers take that for a new row.
    bare = any("\r" in str(cell) for row in rows for cell in row.values())
    cells = pd.DataFrame(rows, columns=frame.columns, dtype=object)
    return cells.to_csv(index=False, quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL)


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def to_table(frame: pd.DataFrame) -> str:
    """Aligned columns; ages as ``2h 05m``, times UTC to the second, columns without any value
    left out, control characters shown and not sent to the terminal."""
    shown = frame.dropna(axis="columns", how="all") if len(frame) else frame
    columns = [
        [str(name).removesuffix("_seconds"), *(_show(name, v) for v in shown[name].astype(object))]
        for name in shown
    ]
    numeric = [pd.api.types.is_numeric_dtype(shown[name]) for name in shown]
    widths = [max(map(_width, column)) for column in columns]
    lines = [
        "  ".join(
            _pad(cell, width, right)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join(lines if len(frame) else [*lines, "(none)"])


def _show(name: Any, value: Any) -> str:
    value = _plain(value)
    if value is None:
        return "-"
    if str(name).endswith("_seconds"):
        return duration(value)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    if text.endswith("Z") and text[10:11] == "T":
        text = text[:19].replace("T", " ") + "Z"
    return visible(text)


def visible(text: str, widest: int = _WIDEST) -> str:
    """*text* on one line without control or direction characters, cut to *widest* columns."""
    text = "".join(
        c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else _escaped(c)
        for c in text[: widest + 1]
    )
    while _width(text) > widest:
        text = text[: max(0, min(len(text) - 1, widest) - 1)] + "…"
    return text


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def duration(seconds: float) -> str:
    """``45s``, ``12m``, ``2h 05m``, ``3d 04h``: two units are enough to act on."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m"


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "table": to_table,
    "json": to_json,
    "csv": to_csv,
}
