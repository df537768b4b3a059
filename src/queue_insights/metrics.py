"""A run's figures as Prometheus metrics, in a file for the node exporter's textfile collector."""

import importlib.util
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from queue_insights.errors import InputError
from queue_insights.execution import ReportError

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check(file: Path) -> None:
    """Raises InputError where metrics could not be written, before a report runs for minutes."""
    if importlib.util.find_spec("prometheus_client") is None:
        raise InputError("--metrics needs prometheus-client: pip install 'queue-insights[metrics]'")
    if not file.parent.is_dir() or file.is_dir():
        raise InputError(f"--metrics {file}: expected a file in a folder that exists")


def write(file: Path, summary: dict[str, Any], tables: list[dict[str, Any]]) -> None:
    """Gauges, labelled with report, pipeline and database, replacing *file* in one step.

    Each key figure; each numeric column of the tables by step, as ``queue_insights_step_COLUMN``
    with stage and task_type; the number of breached thresholds; and ``as_of`` and ``finished`` as
    Unix times, to alert on a report that has stopped running. Raises ReportError if it fails.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    common = {
        "report": summary["report"],
        "pipeline": (summary["pipeline"] or {}).get("name", ""),
        "database": summary["database"] or "",
    }
    for name, value, step in _samples(summary, tables):
        labels = common | step
        if name not in gauges:
            title = name.replace("_", " ")
            gauges[name] = Gauge(f"queue_insights_{name}", title, list(labels), registry=registry)
        gauges[name].labels(**labels).set(value)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise ReportError(f"--metrics {file}: cannot be written: {error.strerror}") from None


def _samples(
    summary: dict[str, Any], tables: list[dict[str, Any]]
) -> Iterator[tuple[str, float, dict[str, str]]]:
    for name, value in summary["figures"].items():
        if _is_number(value):
            yield name, value, {}
    yield "thresholds_breached", len(summary["breached"]), {}
    for key in ("as_of", "finished_at"):
        if summary[key]:
            time = datetime.fromisoformat(summary[key])
            yield f"{key.removesuffix('_at')}_timestamp_seconds", time.timestamp(), {}
    seen: set[str] = set()
    for table in tables:
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        if not {"stage", "task_type"} <= set(table["columns"]) or not _one_row_a_step(rows):
            continue
        for column in table["columns"]:
            if column not in seen and _NAME.fullmatch(column):
                for row in rows:
                    if _is_number(row[column]):
                        step = {"stage": row["stage"], "task_type": row["task_type"]}
                        yield f"step_{column}", row[column], step
        seen |= set(table["columns"])


def _one_row_a_step(rows: list[dict[str, Any]]) -> bool:
    steps = [(row["stage"], row["task_type"]) for row in rows]
    return len(set(steps)) == len(steps)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
