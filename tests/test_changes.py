"""What a report says has changed since the run of a day ago, and what it must not compare."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import Bench
from queue_insights import pipeline, summary
from queue_insights.actions.definitions import ACTIONS
from queue_insights.database import Database
from queue_insights.queue import Queue
from queue_insights.report import changes
from reporting import MISSING, incident, queue_insights

FAIL = """
    INSERT INTO tracks (spotify_track_id, title, artists, stage)
    SELECT %(id)s, 'Failing', '[]', 'audio_ready';
    INSERT INTO audio_tasks (spotify_track_id, task_type, status, attempts, last_attempt_at,
        error_message)
    VALUES (%(id)s, 'align', 'failed', 3, now() - %(ago)s::interval, %(text)s)
"""


@pytest.fixture
def url(server: Callable[[str], str], templates: dict[str, str]) -> Iterator[str]:
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


def a_day_older(folder: Path, **changed: Any) -> None:
    """Make that run one of a day ago."""
    file = folder / "summary.json"
    summary = json.loads(file.read_text("utf-8")) | changed
    for name in ("as_of", "started_at", "finished_at"):
        at = datetime.fromisoformat(summary[name]) - timedelta(days=1)
        summary[name] = at.isoformat().replace("+00:00", "Z")
    file.write_text(json.dumps(summary), "utf-8")


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
    a_day_older(folder)

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
    assert (
        second["before"]["as_of"]
        == json.loads((tmp_path / second["before"]["report"] / "summary.json").read_text("utf-8"))[
            "as_of"
        ]
    )
    changes = {
        name: by for name, by in second["changes"].items() if name != "oldest_waiting_seconds"
    }
    expected = {"waiting": -1, "hidden": -1, "failing": 1, "exhausted": 1}
    assert {name: by for name, by in changes.items() if by} == expected
    assert (code, second["figures"]["new_failures"]) == (3, 1)
    assert Queue(Database(url), pipeline.load()).failures()["new"].all()  # to the tables alone
    page = (folder / "report.html").read_text("utf-8")
    assert "the change since" in page
    assert '<small class="better">-1</small>' in page  # a tile
    assert '<small class="worse">+1</small>' in page  # a step

    # Of another database, pipeline or parameter, no run is compared with.
    third = tmp_path / second["before"]["report"]
    for other in ({"database": "other on localhost"}, {"pipeline": {"name": "other"}}):
        summary = json.loads((third / "summary.json").read_text("utf-8"))
        (third / "summary.json").write_text(json.dumps(summary | other), "utf-8")
    assert report(url, tmp_path)[1]["before"] is None


@pytest.mark.proof
def test_thresholds_of_none_mean_none(url: str, tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("thresholds: []\n")
    code, summary, _ = report(url, tmp_path, "-f", str(tmp_path / "none.yaml"))
    assert (code, summary["breached"]) == (0, [])
    assert summary["figures"]["hidden"] > 0


def test_an_empty_queue_is_green(
    server: Callable[[str], str], templates: dict[str, str], tmp_path: Path
) -> None:
    with incident(server, templates) as url:
        execute(url, ("TRUNCATE tracks, audio_tasks", {}))
        code, summary, folder = report(url, tmp_path)
    assert (code, summary["breached"], summary["next"]) == (0, [], [])
    assert (
        "breached"
        not in (folder / "report.html").read_text("utf-8").split("<main")[0].split("</style>")[1]
    )


@pytest.mark.proof
def test_the_commands_of_a_report_are_run_as_they_are(url: str, tmp_path: Path) -> None:
    execute(url, (FAIL, {"id": "known", "ago": "3 days", "text": "no answer within 30 s"}))
    _, summary, folder = report(url, tmp_path)
    lines = [step["command"] for step in summary["next"]]
    assert [line.split()[1] for line in lines] == ["backfill", "reset", "retry", "prune"]
    for line in lines:
        done = queue_insights(*line.split()[1:], url=url)
        (step,) = (step for step in summary["next"] if step["command"] == line)
        said = int(step["why"].split()[0].replace(",", ""))
        assert done.returncode == 0, done.stderr
        assert f": {said} rows" in done.stdout
    rows = (folder / "tables" / "failures.csv").read_text("utf-8")
    assert "queue-insights retry --task align --failure" in rows


def run_of(hours: float, folder: Path, waiting: int, **changed: Any) -> dict[str, Any]:
    """The summary of a run so many hours ago, with a table of steps and one of failures."""
    as_of = datetime(2026, 3, 2, 12, tzinfo=UTC) - timedelta(hours=hours)
    tables = folder / "tables"
    tables.mkdir(parents=True)
    (tables / "by_stage.csv").write_text(f"task_type,waiting,running\nalign,{waiting},1\nclip,,2\n")
    (tables / "missing.csv").write_text("spotify_track_id,task_type,attempts\nt2,align,3\n")
    (tables / "failures.csv").write_text("task_type,failure,rows,new\nalign,0000aaaa,2,True\n")
    return {
        **{"report": "r", "database": "db", "pipeline": {"name": "karaoke"}},
        **{"as_of": as_of.isoformat().replace("+00:00", "Z"), "folder": folder},
        "parameters": {"limit": hours, "timezone": str(hours), "task": None},
        "figures": {"waiting": waiting, "eligible": 3, "stuck": None, "waiting_grown": 7},
        **changed,
    }


def shown(name: str, columns: list[str], *rows: list[Any]) -> dict[str, Any]:
    table = {"name": name, "columns": columns, "rows": list(rows), "output": {}}
    return {**table, "caption": "A caption", "timezone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("others", "compared"),
    [
        ({}, None),
        ({"a": 23, "b": 26, "c": 30}, "a"),
        ({"a": 11, "b": 37}, None),
        ({"a": 24.1, "failed": 24}, "a"),
    ],
)
def test_the_run_nearest_to_a_day_ago_is_compared_with(
    tmp_path: Path, others: dict[str, float], compared: str | None
) -> None:
    runs = [run_of(hours, tmp_path / name, 10) for name, hours in others.items()]
    for run in runs:
        if run["folder"].name == "failed":
            run["error"] = "the kernel died"
    summary = run_of(0, tmp_path / "now", 14)
    columns = ["task_type", "failure", "rows", "last_seen", "new"]
    seen = "2026-03-02T11:00:00Z"
    failures = [["align", "0000aaaa", 5, seen, True], ["clip", "0000aaaa", 1, None, True]]
    tables = [
        shown("by_stage", ["task_type", "waiting", "running"], ["align", 14, 9], ["clip", 2, 2]),
        shown("failures", columns, *failures),
        shown("missing", ["spotify_track_id", "task_type", "attempts"], ["t1", "align", 1]),
    ]
    changes.compare(summary, tables, runs)
    if compared is None:
        assert (summary["before"], summary["changes"]) == (None, {"waiting": 7})
        assert [row[-1] for row in tables[1]["rows"]] == [True, True]
        return
    assert summary["before"]["report"] == compared
    assert summary["changes"] == {"waiting": 4}
    assert summary["figures"]["new_failures"] == 1
    assert [row[-1] for row in tables[1]["rows"]] == [False, True]
    assert tables[2]["output"] == {}  # a list stays as the notebook showed it
    steps, kinds = (table["output"]["text/html"] for table in tables[:2])
    assert "14 <small class=worse>+4</small>" in steps
    assert "9 <small" not in steps  # running: neither better nor worse
    assert "5 <small class=worse>+3</small>" in kinds
    assert "12:00" in kinds  # in Berlin


def test_what_is_to_be_done_is_what_the_actions_plan(bench: Bench) -> None:
    rows: list[dict[str, Any]] = [
        {},  # pending
        {"status": "failed", "attempts": 1},
        {"status": "failed", "attempts": 1, "next_retry_at": "infinity"},
        {"status": "pending", "attempts": 1, "next_retry_at": "infinity"},
        {"status": "running", "last_attempt_at": "2020-01-01"},
        {"status": "failed", "attempts": 3},
        {"status": "pending", "attempts": 3},
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
    planned = {action: queue.plan(action).rows for action in ACTIONS}
    assert {c.split()[1]: int(why.split()[0]) for why, c in steps} == planned
    assert all(command.endswith(" --pipeline 'it'\"'\"'s.yaml'") for _, command in steps)
    causes = summary.causes(failures)
    (failure,) = failures["failure"]
    assert list(causes["retry"]) == [f"queue-insights retry --task align --failure {failure}"]
