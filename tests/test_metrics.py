"""``report --metrics``: what Prometheus would read."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from queue_insights.errors import InputError
from queue_insights.report import maker

SUMMARY: dict[str, Any] = {
    **{"report": "backlog_report", "pipeline": {"name": "karaoke"}, "breached": [{}, {}]},
    "database": 'db "x" on \\host',
    "figures": {"hidden": 50, "oldest_waiting_seconds": 61.5, "verdict": "bad", "eta": None},
    **{"as_of": "2026-11-22T10:30:00Z", "finished_at": "2026-11-22T10:30:09Z"},
}


def test_figures_are_gauges_in_a_file_that_could_be_written(tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "no" / "queue.prom"):
        with pytest.raises(InputError, match="expected a file in a folder that exists"):
            maker.check_metrics(file)
    file = tmp_path / "queue.prom"
    file.write_text("old")
    maker.check_metrics(file)
    maker.write_metrics(file, SUMMARY)
    families = text_string_to_metric_families(file.read_text("utf-8"))
    samples = [sample for family in families for sample in family.samples]
    assert {sample.name.removeprefix("queue_insights_"): sample.value for sample in samples} == {
        **{"hidden": 50, "oldest_waiting_seconds": 61.5, "thresholds_breached": 2},
        **{"as_of_timestamp_seconds": 1795343400, "finished_timestamp_seconds": 1795343409},
    }
    labels = {"report": "backlog_report", "pipeline": "karaoke", "database": SUMMARY["database"]}
    assert all(sample.labels == labels for sample in samples)
    assert [path.name for path in tmp_path.iterdir()] == ["queue.prom"]
