"""What has changed since the report of a day ago, which lies beside this one."""

import csv
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from queue_insights import formats
from queue_insights.buckets import time_zone

# Of these, more is worse. Others are neither better nor worse, and no change of theirs is told.
WORSE = (
    *("waiting", "hidden", "missing", "failing", "stuck", "exhausted", "drifted", "orphans"),
    *("rows", "oldest_waiting_seconds", "eta_p80_seconds"),
)
DAY, HALF = timedelta(days=1), timedelta(hours=12)
_KEYS = ("task_type", "failure")


def compare(summary: dict[str, Any], tables: list[dict[str, Any]], runs: list[Any]) -> None:
    """Add to *summary* what it is compared with (before) and by how much figures differ (changes),
    to *tables* likewise, and to the figures how many kinds of failure are new. *runs* are the
    summaries beside it, as ``folders.listed`` returns them."""
    before = _day_ago(summary, runs)
    figures, then = summary["figures"], before["figures"] if before else {}
    numbers = [{n for n, v in each.items() if type(v) in (int, float)} for each in (figures, then)]
    changes = {n: figures[n] - then[n] for n in WORSE if n in numbers[0] & numbers[1]}
    grown = figures.pop("waiting_grown", None)  # from history, where there is no other run
    summary["before"] = before and {"as_of": before["as_of"], "report": before["folder"].name}
    summary["changes"] = changes if before or grown is None else {"waiting": grown}
    for table in tables:
        # A list of tracks has none of these figures: its file, which may be long, is not read.
        if "task_type" not in table["columns"] or not set(WORSE) & set(table["columns"]):
            continue
        old = _rows(before["folder"] / "tables" / f"{table['name']}.csv") if before else {}
        if table["name"] == "failures":
            _new(table, old, before is not None)
            if before:
                place = table["columns"].index("new")
                figures["new_failures"] = sum(row[place] for row in table["rows"])
        _mark(table, old)


def _day_ago(summary: dict[str, Any], runs: list[Any]) -> Any:
    """The run that is nearest to a day before this one, of the same queue and parameters."""

    def same(run: dict[str, Any]) -> tuple[Any, ...]:
        asked = {k: v for k, v in run["parameters"].items() if k not in ("limit", "timezone")}
        return run["report"], run["database"], run["pipeline"], asked

    def distance(run: dict[str, Any]) -> timedelta:
        at, now = (datetime.fromisoformat(each["as_of"]) for each in (run, summary))
        return abs(now - at - DAY)

    if summary["as_of"] is None:
        return None
    others = [run for run in runs if "error" not in run and run.get("as_of")]
    near = [run for run in others if same(run) == same(summary) and distance(run) <= HALF]
    return min(near, key=distance, default=None)


def _rows(file: Path) -> dict[tuple[Any, ...], dict[str, str]]:
    """The rows of a table of that run, by the step and the kind of failure that they are about."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except OSError:
        return {}
    return {tuple(row.get(key) for key in _KEYS): row for row in rows}


def _key(table: dict[str, Any], row: Sequence[Any]) -> tuple[Any, ...]:
    found = dict(zip(table["columns"], row, strict=True))
    return tuple(found.get(key) for key in _KEYS)


def _new(table: dict[str, Any], old: dict[tuple[Any, ...], Any], known: bool) -> None:
    """A kind that had failed a day ago is not new, even if those rows have been retried since."""
    place = table["columns"].index("new")
    for row in table["rows"] if known else ():
        row[place] = bool(row[place]) and _key(table, row) not in old


def _mark(table: dict[str, Any], old: dict[tuple[Any, ...], dict[str, str]]) -> None:
    """The table's HTML anew, with what has changed beside its figures."""
    changes: dict[tuple[int, str], float] = {}
    for number, row in enumerate(table["rows"]):
        was = old.get(_key(table, row), {})
        for name, value in zip(table["columns"], row, strict=True):
            if name in WORSE and type(value) in (int, float) and was.get(name):
                changes[number, name] = value - type(value)(float(was[name]))
    if old:
        frame = pd.DataFrame(table["rows"], columns=table["columns"])
        for name in frame.columns[frame.columns.str.endswith(("_at", "_seen"))]:
            frame[name] = pd.to_datetime(frame[name], utc=True)
        zone = time_zone(table["timezone"], "timezone")
        table["output"]["text/html"] = formats.to_html(frame, table["caption"], zone, changes)
