"""Reports beside each other: what has changed since a day ago, the index, names, pruning."""

import contextlib
import csv
import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import Bench, Url
from operating import edited
from queue_insights import formats, pipeline, summary
from queue_insights.actions.definitions import ACTIONS
from queue_insights.database import Database
from queue_insights.queue import Queue
from queue_insights.report import changes, folders
from queue_insights.report.execution import ReportError
from reporting import MISSING, incident, queue_insights

FAIL = """
    INSERT INTO tracks (spotify_track_id, title, artists, stage)
    SELECT %(id)s, 'Failing', '[]', 'audio_ready';
    INSERT INTO audio_tasks (spotify_track_id, task_type, status, attempts, last_attempt_at,
        error_message)
    VALUES (%(id)s, 'align', 'failed', 3, now() - %(ago)s::interval, %(text)s)
"""


@pytest.fixture
def url(server: Url, templates: dict[str, str]) -> Iterator[str]:
    with incident(server, templates) as url:
        yield url


def execute(url: str, *statements: tuple[str, dict[str, str]]) -> None:
    with psycopg.connect(url) as connection:
        for statement, values in statements:
            for each in statement.split(";"):
                connection.execute(each, values)


def report(url: str, output: Path, *arguments: str) -> tuple[int, dict[str, Any], Path]:
    """Exit code, summary and folder of a new backlog report."""
    there = set(output.glob("backlog_report-*"))
    done = queue_insights("report", "backlog_report", "--output", output, *arguments, url=url)
    (folder,) = set(output.glob("backlog_report-*")) - there
    return done.returncode, json.loads((folder / "summary.json").read_text("utf-8")), folder


def change(folder: Path, **changed: Any) -> None:
    """Make that run one of which other things are said."""
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    (folder / "summary.json").write_text(json.dumps(summary | changed), "utf-8")


@pytest.mark.proof
def test_a_report_says_what_has_changed_since_that_of_a_day_ago(url: str, tmp_path: Path) -> None:
    known = {"id": "known", "ago": "3 days", "text": "no answer within 30 s"}
    execute(url, (FAIL, known))
    code, first, folder = report(url, tmp_path)
    assert (code, first["before"]) == (3, None)
    assert [breach["figure"] for breach in first["breached"]] == ["hidden", "stuck"]
    assert list(first["changes"]) == ["waiting"]  # from history: all that waits came today
    assert first["changes"]["waiting"] == sum(MISSING.values()) + 1
    assert first["figures"]["new_failures"] is None
    page = (folder / "report.html").read_text("utf-8")
    assert "There is no run of a day ago to compare with" in page
    times = ("as_of", "started_at", "finished_at")
    earlier = {name: datetime.fromisoformat(first[name]) - timedelta(days=1) for name in times}
    change(folder, **{name: f"{at:%Y-%m-%dT%H:%M:%SZ}" for name, at in earlier.items()})
    before = folder

    # The known failure was retried and has failed again; another kind is new; a track is gone.
    again = (
        "UPDATE audio_tasks SET last_attempt_at = now(), error_message = 'no answer within 5 s' "
    )
    execute(
        url,
        (f"{again} WHERE error_message LIKE 'no answer%%'", {}),
        (FAIL, {"id": "other", "ago": "1 minute", "text": "disk full"}),
        ("DELETE FROM tracks WHERE spotify_track_id = 'audio_ready01'", {}),
    )
    code, second, folder = report(url, tmp_path)
    assert second["before"]["as_of"] == f"{earlier['as_of']:%Y-%m-%dT%H:%M:%SZ}"
    assert second["before"]["report"] == before.name
    expected = {"waiting": -1, "hidden": -1, "failing": 1, "exhausted": 1}
    changes = {name: by for name, by in second["changes"].items() if by}
    assert changes.items() >= expected.items()
    assert changes.keys() - expected == {"oldest_waiting_seconds"}
    commands = [step["command"].split()[1] for step in second["next"]]
    assert commands == ["backfill", "reset", "retry", "prune"]
    with (folder / "tables" / "failures.csv").open(encoding="utf-8") as file:
        kinds = {row["error"][:4]: row for row in csv.DictReader(file)}
    assert {kind: row["new"] for kind, row in kinds.items()} == {"no a": "False", "disk": "True"}
    assert kinds["disk"]["retry"].startswith("queue-insights retry --task align --failure ")
    assert (code, second["figures"]["new_failures"]) == (3, 1)
    assert Queue(Database(url), pipeline.load()).failures()["new"].all()  # to the tables alone
    page = (folder / "report.html").read_text("utf-8")
    assert '<small class="better">-1</small>' in page  # a tile
    assert '<small class="worse">+1</small>' in page  # a step

    # Of another pipeline no run is compared with. Thresholds of none mean none.
    change(before, pipeline={"name": "other"})
    (tmp_path / "none.yaml").write_text("thresholds: []\n")
    code, third, _ = report(url, tmp_path, "-f", str(tmp_path / "none.yaml"))
    assert (code, third["breached"], third["before"]) == (0, [], None)
    assert third["figures"]["hidden"] > 0


def test_an_empty_queue_is_green(url: str, tmp_path: Path) -> None:
    execute(url, ("TRUNCATE tracks, audio_tasks", {}))
    code, summary, folder = report(url, tmp_path)
    assert (code, summary["breached"], summary["next"]) == (0, [], [])
    assert "Nothing is in the queue" in (folder / "report.html").read_text("utf-8")


def run_of(hours: float, **changed: Any) -> dict[str, Any]:
    as_of = datetime(2026, 3, 2, 12, tzinfo=UTC) - timedelta(hours=hours)
    figures = {"waiting": 14 - int(hours), "eligible": 3, "stuck": None, "waiting_grown": 7}
    return {
        **{"report": "r", "database": "db", "pipeline": {"name": "karaoke"}, "figures": figures},
        **{"as_of": f"{as_of:%Y-%m-%dT%H:%M:%SZ}", "folder": Path("/no") / str(hours)},
        "parameters": {"limit": hours, "timezone": str(hours), "task": None},
        **changed,
    }


def test_the_run_nearest_to_a_day_ago_is_compared_with() -> None:
    other = run_of(24, parameters={"limit": 1, "timezone": "UTC", "task": "clip"})
    unlike = [run_of(11), run_of(37), run_of(24, database="other"), other]
    for near, compared in (([], None), ([23, 26, 30], "23")):
        summary = run_of(0)
        changes.compare(summary, [], [*unlike, run_of(24, error="x"), *map(run_of, near)])
        before = summary["before"]
        assert (before and before["report"]) == compared
        assert summary["changes"] == {"waiting": 23 if compared else 7}


def test_the_commands_to_run_next_plan_what_is_said_to_be_done(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(tmp_path, "karaoke", "karaoke").rename(tmp_path / "it's.yaml")
    monkeypatch.chdir(tmp_path)
    rows: list[dict[str, Any]] = [
        {},  # pending
        {"status": "failed", "attempts": 1},
        {"status": "failed", "attempts": 1, "next_retry_at": "infinity"},
        {"status": "running", "last_attempt_at": "2020-01-01"},
        {"status": "failed", "attempts": 3},
        {"status": "completed"},
    ]
    for number, columns in enumerate(rows):
        bench.task(bench.track(f"at {number}", "audio_ready"), "align", **columns)
        bench.task(bench.track(f"gone {number}", "ready"), "align", **columns)
        bench.track(f"missing {number}", "aligned")
    queue = bench.queue
    with queue.snapshot():
        failures = queue.failures()
        steps = summary.next_steps(queue.backlog(), queue.audit(), failures, "it's.yaml")
    assert {command.split()[1] for _, command in steps} == set(ACTIONS)
    for why, command in steps:
        done = queue_insights(*shlex.split(command)[1:], url=bench.url)
        assert done.returncode == 0, done.stderr
        assert f": {why.split()[0]} rows" in done.stdout
    causes = summary.causes(failures)
    (failure,) = failures["failure"]
    assert list(causes["retry"]) == [f"queue-insights retry --task align --failure {failure}"]


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


def test_complete_runs_and_failures_are_listed_newest_first(tmp_path: Path) -> None:
    first = f"backlog_report-{NOW:%Y%m%dT%H%M%SZ}"  # two in one second
    assert [made(tmp_path, 0), made(tmp_path, 0)] == [first, f"{first}-2"]
    broken = {"half": '{"report": "bro', ".unfinished-x": '{"report": "bro", "started_at": "1"}'}
    for name, text in {**broken, "list": "[1]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    made(tmp_path, 3, title="Oldest")
    shown = {"tiles": [["waiting", "w"]], "figures": {"waiting": 4}, "changes": {"waiting": -6}}
    breached = [{"threshold": "hidden > 0"}]
    made(tmp_path, 1, title="Newest & <best>", breached=breached, **shown)
    failed(tmp_path, 2)
    text = page(tmp_path)
    order = [text.index(word) for word in ("Newest &amp; &lt;best&gt;", "&lt;failed&gt;", "Oldest")]
    assert order == sorted(order)
    assert text.count("<tr>") == 3 + len(order)
    assert "1 breached" in text
    assert '<dd>4 <small class="better">-6</small></dd>' in text


@pytest.mark.parametrize(("keep", "left"), [("1", [1]), ("2d", [1, 30])])
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
