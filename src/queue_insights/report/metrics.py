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


def write(file: Path, summary: dict[str, Any]) -> None:
    """Gauges, labelled with report, pipeline and database, replacing *file* in one step: each key
    figure that is a number, the breached thresholds, and ``as_of`` and ``finished`` as Unix times.
    Raises ReportError."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    values = {**summary["figures"], "thresholds_breached": len(summary["breached"])}
    for name, time in {"as_of": summary["as_of"], "finished": summary["finished_at"]}.items():
        if time:
            values[f"{name}_timestamp_seconds"] = datetime.fromisoformat(time).timestamp()
    labels = {"report": summary["report"], "database": summary["database"] or ""}
    labels["pipeline"] = (summary["pipeline"] or {}).get("name", "")
    registry = CollectorRegistry()
    for name, value in values.items():
        if type(value) in (int, float):
            gauge = Gauge(f"queue_insights_{name}", name, labels, registry=registry)
            gauge.labels(**labels).set(value)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise ReportError(f"--metrics {file}: cannot be written: {error.strerror}") from None
