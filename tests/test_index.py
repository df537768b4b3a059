"""The index of runs: what it lists, what it leaves out, what changed, and pruning."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from queue_insights import index, report, runs
from queue_insights.errors import InputError

NOW = datetime.now(UTC)


def made(output: Path, age: timedelta, name: str = "backlog_report", **summary: Any) -> str:
    """Publish a run of *age*; returns its folder's name."""
    started_at = NOW - age
    with runs.workspace(output) as folder:
        text = {"report": name, "started_at": started_at.isoformat(), **summary}
        (folder / "summary.json").write_text(json.dumps(text))
        return runs.publish(folder, output, name, started_at).name


def failure(output: Path, age: timedelta) -> None:
    with runs.workspace(output) as folder:
        notebook = folder / "x.ipynb"
        notebook.write_text("{}")
        runs.keep_failed(notebook, output, "backlog_report", NOW - age, "cell 2 <failed>")


def page(output: Path) -> str:
    return (output / "index.html").read_text("utf-8")


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def test_runs_and_failures_are_listed_newest_first(tmp_path: Path) -> None:
    made(tmp_path, hours(3), title="Oldest")
    made(tmp_path, hours(1), title="Newest & <best>")
    failure(tmp_path, hours(2))
    text = page(tmp_path)
    order = [text.index(word) for word in ("Newest &amp; &lt;best&gt;", "&lt;failed&gt;", "Oldest")]
    assert order == sorted(order)


def test_a_folder_without_a_whole_summary_is_no_run(tmp_path: Path) -> None:
    good = made(tmp_path, hours(1))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "summary.json").write_text('{"report": "backlog_rep')
    (tmp_path / ".unfinished-x").mkdir()
    (tmp_path / ".unfinished-x" / "summary.json").write_text('{"report": "x", "started_at": "1"}')
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "summary.json").write_text("[1]")
    assert [run["folder"] for run in index.complete(tmp_path)] == [good]


def test_the_change_is_since_the_run_before_on_the_same_queue(tmp_path: Path) -> None:
    here = {"database": "db on here", "pipeline": {"name": "karaoke"}}
    there = {"database": "db on there", "pipeline": {"name": "karaoke"}}
    made(tmp_path, hours(3), figures={"waiting": 10, "oldest_waiting_seconds": 7200.0}, **here)
    made(tmp_path, hours(2), figures={"waiting": 1000}, **there)
    made(tmp_path, hours(1), figures={"waiting": 4, "oldest_waiting_seconds": 9000.0}, **here)
    text = page(tmp_path)
    assert "<dd>4 (-6)</dd>" in text
    assert "<dd>2h 30m (+30m)</dd>" in text
    assert "<dd>1,000</dd>" in text
    assert "<dd>10</dd>" in text


def test_breached_runs_stand_out(tmp_path: Path) -> None:
    made(tmp_path, hours(1), breached=[{"threshold": "hidden > 0"}])
    assert "1 breached" in page(tmp_path)


@pytest.mark.parametrize(
    ("keep", "left"), [(2, [1, 30]), (timedelta(days=2), [1, 30]), (9, [1, 30, 60])]
)
def test_pruning_keeps_the_newest_and_other_reports(
    tmp_path: Path, keep: int | timedelta, left: list[int]
) -> None:
    ours = {age: made(tmp_path, hours(age)) for age in (1, 30, 60)}
    other = made(tmp_path, hours(600), "other")
    failure(tmp_path, hours(700))
    runs.prune(tmp_path, "backlog_report", keep)
    names = {path.name for path in tmp_path.iterdir()} - {"index.html", "failed"}
    assert names == {other, *(ours[age] for age in left)}
    assert bool(index.failed(tmp_path)) is isinstance(keep, int)
    assert len(list((tmp_path / "failed").iterdir())) in (0, 2)
    assert all(run["folder"] in page(tmp_path) for run in index.complete(tmp_path))


@pytest.mark.parametrize("keep", ["0", "-1", "all", "30", "30d", "1.5"])
def test_keep_is_a_number_of_runs_or_an_age(keep: str) -> None:
    if keep in ("30", "30d"):
        assert report._keep(keep) in (30, timedelta(days=30))
    else:
        with pytest.raises(InputError, match="expected a number of runs, or an age such as 30d"):
            report._keep(keep)
