"""Folders of reports: names, leftovers, the index with what changed, and pruning."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from queue_insights import formats
from queue_insights.errors import InputError
from queue_insights.report import folders
from queue_insights.report.execution import ReportError

NOW = datetime.now(UTC)


def made(output: Path, age: timedelta, name: str = "backlog_report", **summary: Any) -> str:
    """Make a report of *age*; returns its folder's name."""
    start = {"report": name, "started_at": formats.iso(NOW - age)}
    with folders.unfinished(output, start) as folder:
        (folder / "report.html").write_text("")
        return folders.publish(folder, start | summary).name


def failed(output: Path, age: timedelta) -> None:
    start = {"report": "backlog_report", "started_at": formats.iso(NOW - age)}
    with contextlib.suppress(ReportError), folders.unfinished(output, start) as folder:
        (folder / "backlog_report.ipynb").write_text("{}")
        raise ReportError("cell 2 <failed>")


def page(output: Path) -> str:
    return (output / "index.html").read_text("utf-8")


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def test_two_runs_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    names = [made(tmp_path, hours(0), "x") for _ in range(3)]
    first = f"x-{NOW:%Y%m%dT%H%M%SZ}"
    assert names == [first, f"{first}-2", f"{first}-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", *names]


def test_what_a_killed_run_left_is_removed_but_not_a_living_one(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-dead").mkdir()
    with (
        contextlib.suppress(KeyboardInterrupt),
        folders.unfinished(tmp_path, {}) as one,
        folders.unfinished(tmp_path, {}) as two,
    ):
        assert {path.name for path in tmp_path.iterdir()} == {one.name, two.name}
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_runs_and_failures_are_listed_newest_first(tmp_path: Path) -> None:
    made(tmp_path, hours(3), title="Oldest")
    made(tmp_path, hours(1), title="Newest & <best>", breached=[{"threshold": "hidden > 0"}])
    failed(tmp_path, hours(2))
    text = page(tmp_path)
    order = [text.index(word) for word in ("Newest &amp; &lt;best&gt;", "&lt;failed&gt;", "Oldest")]
    assert order == sorted(order)
    assert "1 breached" in text


def test_a_folder_without_a_complete_summary_is_no_run(tmp_path: Path) -> None:
    good = made(tmp_path, hours(1))
    unfinished = '{"report": "x", "started_at": "1"}'
    broken = {"half": '{"report": "backlog_rep', ".unfinished-x": unfinished, "list": "[1]"}
    for name, text in broken.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    assert [entry["folder"].name for entry in folders.listed(tmp_path)] == [good]


def test_the_change_is_since_the_run_before_on_the_same_queue(tmp_path: Path) -> None:
    here = {"database": "db on here", "pipeline": {"name": "karaoke"}}
    there = {"database": "db on there", "pipeline": {"name": "karaoke"}}
    made(tmp_path, hours(3), figures={"waiting": 10, "oldest_waiting_seconds": 7200.0}, **here)
    made(tmp_path, hours(2), figures={"waiting": 1000}, **there)
    failed(tmp_path, hours(1.5))
    made(tmp_path, hours(1), figures={"waiting": 4, "oldest_waiting_seconds": 9000.0}, **here)
    for figure in ("4 (-6)", "2h 30m (+30m)", "1,000", "10"):
        assert f"<dd>{figure}</dd>" in page(tmp_path)


@pytest.mark.parametrize(("keep", "left"), [("2", [1, 30]), ("2d", [1, 30]), ("9", [1, 30, 60])])
def test_pruning_keeps_the_newest_and_other_reports(
    tmp_path: Path, keep: str, left: list[int]
) -> None:
    ours = {age: made(tmp_path, hours(age)) for age in (1, 30, 60)}
    other = made(tmp_path, hours(600), "other")
    failed(tmp_path, hours(700))
    folders.prune(tmp_path, "backlog_report", folders.parse_keep(keep))
    names = {path.name for path in tmp_path.iterdir()} - {"index.html", "failed"}
    assert names == {other, *(ours[age] for age in left)}
    assert all(name in page(tmp_path) for name in names)
    has_failure = keep != "2d"
    assert ("&lt;failed&gt;" in page(tmp_path)) is has_failure
    assert len(list((tmp_path / "failed").iterdir())) == has_failure


@pytest.mark.parametrize("keep", ["0", "-1", "all", "1.5"])
def test_keep_is_a_number_of_runs_or_an_age(keep: str) -> None:
    with pytest.raises(InputError, match="expected a number of runs, or an age such as 30d"):
        folders.parse_keep(keep)
