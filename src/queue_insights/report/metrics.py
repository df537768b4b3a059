"""A report's figures as Prometheus metrics, in a file for node exporter's textfile collector."""

import importlib.util
from datetime import datetime
from pathlib import Path
from typing import Any

from queue_insights.errors import InputError
from queue_insights.report.execution import ReportError


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

    samples: dict[tuple[str, ...], Any] = {(name,): v for name, v in summary["figures"].items()}
    samples["thresholds_breached",] = len(summary["breached"])
    for key in ("as_of", "finished_at"):
        if summary[key]:
            time = datetime.fromisoformat(summary[key]).timestamp()
            samples[f"{key.removesuffix('_at')}_timestamp_seconds",] = time
    for table in tables:
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        steps = [(row.pop("stage", "") or "", row.pop("task_type", "") or "") for row in rows]
        if {"stage", "task_type"} <= set(table["columns"]) and len(set(steps)) == len(steps):
            for step, row in zip(steps, rows, strict=True):
                for column, value in row.items():
                    samples.setdefault((f"step_{column}", *step), value)
    registry, gauges = CollectorRegistry(), dict[str, Gauge]()
    queue = (summary["pipeline"] or {}).get("name", ""), summary["database"] or ""
    for (name, *where), value in samples.items():
        if type(value) in (int, float) and name.isascii() and name.isidentifier():
            if name not in gauges:
                labels = ["report", "pipeline", "database", "stage", "task_type"][: 3 + len(where)]
                full_name, text = f"queue_insights_{name}", name.replace("_", " ")
                gauges[name] = Gauge(full_name, text, labels, registry=registry)
            gauges[name].labels(summary["report"], *queue, *where).set(value)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise ReportError(f"--metrics {file}: cannot be written: {error.strerror}") from None
