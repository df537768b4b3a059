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
_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of what a terminal obeys instead of showing


def to_json(frame: pd.DataFrame) -> str:
    """A list of records; times ISO 8601 UTC, missing values null."""
    return json.dumps(records(frame), indent=2, ensure_ascii=False, default=str)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows as JSON-ready dicts."""
    columns = [[_iso(plain(value)) for value in frame[name].astype(object)] for name in frame]
    return [dict(zip(frame.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def plain(value: Any) -> Any:
    """A cell without numpy's types; None where it is missing or no finite number."""
    value = value.item() if hasattr(value, "item") else value
    infinite = isinstance(value, float) and not math.isfinite(value)
    return None if infinite or value is pd.NA or value is pd.NaT else value


def _iso(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def to_csv(frame: pd.DataFrame) -> str:
    """Comma-separated, with a header; text that a spreadsheet would run as a formula is
    prefixed with an apostrophe."""
    rows = [{k: _disarmed(_flat(v)) for k, v in record.items()} for record in records(frame)]
    # Minimal quoting leaves a carriage return bare, and readers take that for a new row.
    bare = any("\r" in str(cell) for row in rows for cell in row.values())
    cells = pd.DataFrame(rows, columns=frame.columns, dtype=object)
    return cells.to_csv(index=False, quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL)


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _disarmed(value: Any) -> Any:
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula else value


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
            (str.rjust if right else str.ljust)(cell, width + len(cell) - _width(cell))
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join(lines if len(frame) else [*lines, "(none)"])


def _show(name: Any, value: Any) -> str:
    value = plain(value)
    if value is None:
        return "-"
    if str(name).endswith("_seconds"):
        return duration(value)
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds").replace("+00:00", "Z")
    return visible(str(_flat(value)))


def visible(text: str, widest: int = _WIDEST) -> str:
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


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "table": to_table,
    "json": to_json,
    "csv": to_csv,
}
