"""What a report says has changed since the run of a day ago, and what it must not compare."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue
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
