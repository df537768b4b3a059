"""Folders of reports: names, leftovers, the index with what changed, and pruning."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from queue_insights import formats
from queue_insights.report import folders
from queue_insights.report.execution import ReportError

NOW = datetime.now(UTC)


def made(output: Path, hours: float, name: str = "backlog_report", **summary: Any) -> str:
    """Make a report that is *hours* old; returns its folder's name."""
    start = {"report": name, "started_at": formats.iso(NOW - timedelta(hours=hours))}
    with folders.unfinished(output, start) as folder:
        (folder / "report.html").write_text("")
        return folders.publish(folder, start | summary).name


def failed(output: Path, hours: float) -> None:
    at = formats.iso(NOW - timedelta(hours=hours))
    start = {"report": "backlog_report", "started_at": at}
    with contextlib.suppress(ReportError), folders.unfinished(output, start):
        raise ReportError("cell 2 <failed>")


def page(output: Path) -> str:
    return (output / "index.html").read_text("utf-8")


def test_two_runs_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    names = [made(tmp_path, 0, "x") for _ in range(3)]
    first = f"x-{NOW:%Y%m%dT%H%M%SZ}"
    assert names == [first, f"{first}-2", f"{first}-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", *names]


def test_complete_runs_and_failures_are_listed_newest_first(tmp_path: Path) -> None:
    broken = {"half": '{"report": "bro', ".unfinished-x": '{"report": "bro", "started_at": "1"}'}
    for name, text in {**broken, "list": "[1]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    made(tmp_path, 3, title="Oldest")
    figures = {"waiting": 4, "oldest_waiting_seconds": 9000.0, "drifted": 1}
    changes = {"waiting": -6, "oldest_waiting_seconds": 1800.0}
    shown = {"tiles": [["waiting", "w"], ["oldest_waiting_seconds", "o"]], "figures": figures}
    breached = {"breached": [{"threshold": "hidden > 0"}], "changes": changes}
    made(tmp_path, 1, title="Newest & <best>", **shown, **breached)
    failed(tmp_path, 2)
    text = page(tmp_path)
    order = [text.index(word) for word in ("Newest &amp; &lt;best&gt;", "&lt;failed&gt;", "Oldest")]
    assert order == sorted(order)
    assert text.count("<tr>") == 1 + len(order)
    assert "1 breached" in text
    assert '<dd>4 <small class="better">-6</small></dd>' in text
    assert '<dd>2h 30m <small class="worse">+30m</small></dd>' in text
    assert "drifted" not in text


@pytest.mark.parametrize(("keep", "left"), [("2", [1, 30]), ("2d", [1, 30]), ("9", [1, 30, 60])])
def test_pruning_keeps_the_newest_and_other_reports(
    tmp_path: Path, keep: str, left: list[int]
) -> None:
    ours = {age: made(tmp_path, age) for age in (1, 30, 60)}
    other = made(tmp_path, 600, "other")
    failed(tmp_path, 700)
    folders.prune(tmp_path, "backlog_report", folders.parse_keep(keep))
    names = {path.name for path in tmp_path.iterdir()} - {"index.html", "failed"}
    assert names == {other, *(ours[age] for age in left)}
    assert all(name in page(tmp_path) for name in names)
    has_failure = keep != "2d"
    assert ("&lt;failed&gt;" in page(tmp_path)) is has_failure
    assert len(list((tmp_path / "failed").iterdir())) == has_failure
