"""``report --metrics``: what Prometheus would read."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from queue_insights.errors import InputError
from queue_insights.report import metrics

SUMMARY: dict[str, Any] = {
    "report": "backlog_report",
    "pipeline": {"name": "karaoke"},
    "database": 'db "x" on \\host',
    "figures": {"hidden": 50, "oldest_waiting_seconds": 61.5, "verdict": "bad", "eta": None},
    "breached": [{}, {}],
    "as_of": "2026-11-22T10:30:00Z",
    "finished_at": "2026-11-22T10:30:09Z",
}
TABLES = [
    {
        "name": "by_stage",
        "columns": ["stage", "task_type", "stuck", "oldest_waiting_seconds", "ok", "no name"],
        "rows": [["audio_ready", "align", 0, None, True, 1], [None, 'tr"', 7, 90.0, False, 1]],
    },
    {"name": "other", "columns": ["task_type", "n"], "rows": [["align", 1]]},
    {
        "name": "missing",
        "columns": ["stage", "task_type", "age"],
        "rows": [["audio_ready", "align", 1], ["audio_ready", "align", 2]],
    },
]


def read(file: Path) -> dict[tuple[str, str], float]:
    samples = {}
    for family in text_string_to_metric_families(file.read_text("utf-8")):
        for sample in family.samples:
            assert sample.labels["report"] == "backlog_report"
            assert sample.labels["pipeline"] == "karaoke"
            assert sample.labels["database"] == SUMMARY["database"]
            samples[sample.name, sample.labels.get("task_type", "")] = sample.value
    return samples


def test_figures_and_steps_are_gauges(tmp_path: Path) -> None:
    file = tmp_path / "queue.prom"
    file.write_text("old")
    metrics.check(file)
    metrics.write(file, SUMMARY, TABLES)
    assert read(file) == {
        ("queue_insights_hidden", ""): 50,
        ("queue_insights_oldest_waiting_seconds", ""): 61.5,
        ("queue_insights_thresholds_breached", ""): 2,
        ("queue_insights_as_of_timestamp_seconds", ""): 1795343400,
        ("queue_insights_finished_timestamp_seconds", ""): 1795343409,
        ("queue_insights_step_stuck", "align"): 0,
        ("queue_insights_step_stuck", 'tr"'): 7,
        ("queue_insights_step_oldest_waiting_seconds", 'tr"'): 90,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["queue.prom"]


def test_a_place_that_cannot_be_written_is_refused_before_the_report_runs(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "no" / "queue.prom"):
        with pytest.raises(InputError, match="expected a file in a folder that exists"):
            metrics.check(file)
