"""The command line: what it prints, how it exits, and that it never says a password."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from conftest import Fresh
from operating import command, many
from queue_insights.cli import main
from queue_insights.database import READ_URL, WRITE_URL
from queue_insights.reads import READS
from reporting import COMMANDS, QUOTED, SECRET

Run = Callable[..., Result]
STEP = ["stage", "task_type"]
BACKLOG = [*STEP, *READS["backlog"].counts, "oldest_waiting_seconds"]
AUDIT = [*STEP, "eligible", "visible", "hidden", "orphans", "verdict"]
SOURCES = ["get_pending_tasks", "task_summary", "audio_progress"]
TRACK = ["spotify_track_id", "title", *STEP]


@pytest.fixture
def run(fresh: Fresh) -> Run:
    """Run a command on a queue with a track missing, one pending, and an orphan."""
    bench = fresh("a")  # what a command prints does not depend on the variant
    bench.track("missing", "audio_ready", '=1+1, "quoted"\n\x1b[31m')
    bench.task("missing", "download", "completed", completed_at="2026-03-01 13:30:00.5+01")
    bench.task(bench.track("pending", "audio_ready"), "align", created_at="2026-03-02 12:00Z")
    bench.task(bench.track("orphan", "ready"), "align")

    return partial(command, bench.url)


def records(run: Run, *arguments: str) -> list[dict[str, Any]]:
    result = run(*arguments, "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_json_is_a_list_of_records_whose_keys_are_documented(run: Run) -> None:
    backlog = records(run, "backlog")
    assert [list(record) for record in backlog] == [BACKLOG] * 7
    assert [backlog[1][name] for name in ("total", "missing", "pending")] == [2, 1, 1]
    waited = datetime.now(UTC) - datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert backlog[1]["oldest_waiting_seconds"] == pytest.approx(waited.total_seconds(), abs=300)
    assert backlog[0]["oldest_waiting_seconds"] is None
    assert [list(record) for record in records(run, "audit", "--sources")] == [AUDIT + SOURCES] * 7
    assert records(run, "audit")[1] == {
        **{"stage": "audio_ready", "task_type": "align", "eligible": 2, "visible": 2},
        **{"hidden": 1, "orphans": 1, "verdict": "hidden"},
    }
    assert records(run, "missing", "--task", "align") == [
        {
            **{"spotify_track_id": "missing", "title": '=1+1, "quoted"\n\x1b[31m'},
            **{"stage": "audio_ready", "task_type": "align"},
            "arrived_at": "2026-03-01T12:30:00.500000Z",
        }
    ]
    first, second = records(run, "upcoming")
    assert list(first)[:6] == [*TRACK, "state", "arrived_at"]
    states = [(each["state"], each["status"], each["attempts"]) for each in (first, second)]
    assert states == [("missing", None, None), ("pending", "pending", 0)]
    assert records(run, "upcoming", "--limit", "1") == [first]
    assert records(run, "tasks", "--state", "pending") == [second]
    (orphan,) = records(run, "orphans")
    assert list(orphan)[:5] == [*TRACK, "arrived_at"]
    assert (orphan["spotify_track_id"], orphan["stage"]) == ("orphan", "ready")


def test_a_table_sends_no_escapes_to_the_terminal_and_csv_has_the_columns_of_json(run: Run) -> None:
    for read in READS:
        arguments = [read, *(["missing"] if read == "track" else [])]
        result = run(*arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        assert all(line.isprintable() for line in result.stdout.splitlines())
        text = run(*arguments, "--format", "csv").stdout
        rows = list(csv.reader(io.StringIO(text, newline="")))
        found = records(run, *arguments)
        assert len(rows) == len(found) + 1
        assert not found or rows[0] == list(found[0])
        if read == "missing":  # safe in a spreadsheet
            assert rows[1][1] == '\'=1+1, "quoted"\n\x1b[31m'
    assert run("tasks", "--state", "stuck").stdout.splitlines()[-1] == "(none)"


WRONG = {
    "missing --task algin": "unknown task 'algin': .*did you mean 'align'",
    "tasks --state stck": "unknown state 'stck': expected one of missing, .*did you mean 'stuck'",
    "missing --limit -1": "Invalid value for '--limit'",
    "backlog --format xml": "Invalid value for '--format'",
    "backlog --pipeline karaok": "unknown pipeline 'karaok': .*did you mean 'karaoke'",
    "backlog --tsk align": "No such option",
    "missing align": "unexpected extra argument",
}


def test_wrong_use_exits_2_and_says_what_would_be_right(run: Run) -> None:
    for line, says in WRONG.items():
        result = run(*line.split())
        assert (result.exit_code, result.stdout) == (2, "")
        assert re.search(says, result.stderr), line
        assert "Traceback" not in result.stderr


def test_a_reader_that_stops_reading_is_no_traceback(fresh: Fresh) -> None:
    bench = fresh("a")
    many(bench, "audio_ready", 5000)
    listing = [sys.executable, "-m", "queue_insights", "missing", "--format", "csv"]
    environment, pipe = {READ_URL: bench.url, "PATH": ""}, subprocess.PIPE
    with subprocess.Popen(listing, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith("spotify_track_id")
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


# Every command but those that start a server or a kernel, with something for each argument.
LINES = [
    (*path, *("1" for parameter in each.params if isinstance(parameter, click.Argument)))
    for path, each in COMMANDS.items()
    if path[0] not in ("demo", "lab", "report")
]


@pytest.mark.parametrize("broken", ["", "no_such_database", "no_such_host"])
def test_no_command_says_the_password(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    bench = fresh("a")
    bench.track("a", "audio_ready")
    url = bench.url.replace("postgres@", f"postgres:{QUOTED}@", 1)
    if broken == "no_such_database":
        url = url.replace("/test_", "/no_test_")
    elif broken:
        url = f"postgresql://postgres:{QUOTED}@127.0.0.1:1/db"
    monkeypatch.setenv(READ_URL, url)
    monkeypatch.setenv(WRITE_URL, f"{url}{'&' if '?' in url else '?'}sslpassword={QUOTED}")
    monkeypatch.chdir(tmp_path)
    for line in LINES:
        result = CliRunner().invoke(main, line)
        assert isinstance(result.exception, SystemExit | None), line
        said = result.output + result.stderr
        assert not [secret for secret in (SECRET, QUOTED) if secret in said], line
        assert line != ("backlog",) or result.exit_code == (1 if broken else 0)
    assert not list(tmp_path.iterdir())
