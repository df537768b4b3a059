"""What ``--sql`` prints fits on a screen, and gives in psql the rows that the command gives."""

import csv
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from operating import command
from queue_insights.demo import binaries

LINES, LONG, WIDTH = 80, 130, 120
SHORT = (
    *("backlog", "audit", "audit --sources", "missing", "missing --task align --limit 7"),
    *("upcoming", "upcoming --task clip", "tasks", "tasks --state stuck", "orphans --limit 9"),
)
OF_HISTORY = (
    *("throughput --since 2D", "throughput --bucket 1D", "durations", "flow"),
    "flow --bucket 1W --zone America/New_York --task align",
)
# What psql reads may not change an answer.
SETTINGS = {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German", "PSQLRC": os.devnull}


def printed(url: str, line: str) -> str:
    done = command(url, *line.split())
    assert done.exit_code == 0, done.output
    return done.stdout


def in_psql(url: str, line: str) -> list[dict[str, str]]:
    """What psql gives for what the command prints, which fits on a screen."""
    sql = printed(url, f"{line} --sql")
    assert len(sql.splitlines()) <= (LINES if line in SHORT else LONG)
    assert max(map(len, sql.splitlines())) <= WIDTH
    program = Path(binaries.installed()) / "psql"
    arguments = [program, "-X", "-q", "--csv", "-v", "ON_ERROR_STOP=1", url]
    settings = os.environ | SETTINGS
    done = subprocess.run(arguments, input=sql, env=settings, capture_output=True, text=True)
    assert done.stderr == ""
    return list(csv.DictReader(io.StringIO(done.stdout)))


def same(name: str, shown: str, value: Any) -> bool:
    """Whether psql's text is the value of a record."""
    if value is None:
        return shown == ""
    if name.startswith("oldest"):  # two moments, a little apart
        return abs(float(shown) - value) < 60
    if name.endswith("_at") or name == "bucket":
        return pd.Timestamp(shown) == pd.Timestamp(value)
    if isinstance(value, float):
        return float(shown) == pytest.approx(value)
    return json.loads(shown) == value if isinstance(value, dict | list | int) else shown == value


@pytest.mark.parametrize("line", [*SHORT, *OF_HISTORY])
def test_it_fits_on_a_screen_and_gives_in_psql_what_the_command_gives(
    history_url: str, line: str
) -> None:
    rows = in_psql(history_url, line)
    records = json.loads(printed(history_url, f"{line} --format json"))
    assert len(rows) == len(records) > 0
    for row, record in zip(rows, records, strict=True):
        assert list(row) == list(record)
        wrong = {n: (row[n], value) for n, value in record.items() if not same(n, row[n], value)}
        assert wrong == {}


def test_the_track_and_the_counts_of_a_forecast_likewise(history_url: str) -> None:
    id = json.loads(printed(history_url, "upcoming --limit 1 --format json"))[0]["spotify_track_id"]
    assert in_psql(history_url, f"track {id}")[0]["spotify_track_id"] == id
    assert len(in_psql(history_url, "eta --end-to-end")) == 1
    backlog = {r["task_type"]: r for r in json.loads(printed(history_url, "backlog --format json"))}
    for row in in_psql(history_url, "eta") + in_psql(history_url, "eta --task align"):
        assert int(row["waiting"]) == backlog[row["task_type"]]["waiting"]
        assert len(row["arrivals_n"].split(",")) == len(row["arrivals_interval"].split(","))
