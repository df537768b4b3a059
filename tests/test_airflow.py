"""The Airflow example, run by Airflow itself: `make test-airflow` names its program in AIRFLOW."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from reporting import ROOT, incident

AIRFLOW = os.environ.get("AIRFLOW")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(AIRFLOW is None, reason="make test-airflow sets AIRFLOW"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("airflow")
    done = airflow(home, "db", "migrate")
    assert done.returncode == 0, done.stderr
    return home


def airflow(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "examples" / "airflow"),
        "QUEUE_INSIGHTS": str(Path(sys.executable).with_name("queue-insights")),
        "QUEUE_REPORTS_RETRY_SECONDS": "0",
    }
    assert AIRFLOW is not None
    return subprocess.run(
        [AIRFLOW, *arguments],
        env={**os.environ, **variables, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def run(
    home: Path, folder: Path, url: str, **queue: str
) -> tuple[int, dict[str, list[Any]], int, str]:
    """Test the DAG on one queue: exit code, [state, tries] of its tasks, how many reports it made,
    what it said."""
    params = folder / "params.yaml"
    params.write_text("thresholds: ['hidden > 0']\n")
    config = folder / "queues.json"
    entry = {"pipeline": "karaoke", "connection": "queue_db", "params": str(params), **queue}
    config.write_text(json.dumps([entry]))
    given = conninfo_to_dict(url)
    connection = {
        "conn_type": "postgres",
        "host": given["host"],
        "port": int(given.get("port") or 5432),
        "login": given["user"],
        "password": "hunter2hunter2",
        "schema": given["dbname"],
    }
    done = airflow(
        home,
        *("dags", "test", "queue_reports"),
        QUEUE_REPORTS=str(config),
        QUEUE_REPORTS_OUTPUT=str(folder / "reports"),
        AIRFLOW_CONN_QUEUE_DB=json.dumps(connection),
    )
    states = (
        "SELECT task_id, state, try_number FROM task_instance WHERE run_id = "
        "(SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1)"
    )
    with sqlite3.connect(home / "airflow.db") as database:
        tasks = {task.removeprefix("each."): rest for task, *rest in database.execute(states)}
    pages = len(list((folder / "reports").glob("*/report.html")))
    return done.returncode, tasks, pages, done.stdout + done.stderr


def test_a_healthy_run_succeeds_and_bad_input_is_not_tried_again(
    home: Path, server: Callable[[str], str], templates: dict[str, str], tmp_path: Path
) -> None:
    code, tasks, pages, said = run(home, tmp_path, server(templates["a"]))
    assert code == 0, said
    assert (tasks["report"][0], tasks["alert"][0], pages) == ("success", "skipped", 1)
    assert "hunter2" not in said

    code, tasks, _, said = run(home, tmp_path, server(templates["a"]), pipeline="karaoky")
    assert (code, tasks["report"]) == (1, ["failed", 1])
    assert "unknown pipeline 'karaoky'" in said


def test_a_breached_threshold_alerts(
    home: Path, server: Callable[[str], str], templates: dict[str, str], tmp_path: Path
) -> None:
    with incident(server, templates) as url:
        code, tasks, pages, said = run(home, tmp_path, url)
    assert (code, tasks["report"][0], tasks["alert"][0], pages) == (1, "success", "failed", 1)
    assert "breached: hidden > 0: 54" in said


def test_a_failing_notebook_is_tried_again_and_fails(
    home: Path, server: Callable[[str], str], tmp_path: Path
) -> None:
    code, tasks, pages, said = run(home, tmp_path, server("no_such_database"))
    assert (code, tasks["report"], pages) == (1, ["failed", 3], 0)
    assert "does not exist" in said
