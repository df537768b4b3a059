"""A run's figures as Prometheus metrics, in a file for the node exporter's textfile collector."""

import importlib.util
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

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
        if type(value) in (int, float):
            yield name, value, {}
    yield "thresholds_breached", len(summary["breached"]), {}
    for key in ("as_of", "finished_at"):
        if summary[key]:
            time = datetime.fromisoformat(summary[key])
            yield f"{key.removesuffix('_at')}_timestamp_seconds", time.timestamp(), {}
    seen: set[Any] = set()
    for table in tables:
        frame = pd.DataFrame(table["rows"], columns=table["columns"])
        step = ["stage", "task_type"]
        if not set(step) <= set(frame) or frame.duplicated(step).any():
            continue
        for column, values in frame.select_dtypes("number").items():
            if column not in seen and _NAME.fullmatch(str(column)):
                steps = zip(frame["stage"], frame["task_type"], values, strict=True)
                for stage, task, value in steps:
                    if pd.notna(value):
                        yield f"step_{column}", value, {"stage": stage, "task_type": task}
        seen |= set(frame)
