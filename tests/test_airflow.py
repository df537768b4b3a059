"""The Airflow example, run by Airflow itself: `make test-airflow` names its program in AIRFLOW."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from conftest import Url
from reporting import ROOT, incident

AIRFLOW = os.environ.get("AIRFLOW")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(AIRFLOW is None, reason="make test-airflow sets AIRFLOW"),
]
STATES = (
    "SELECT map_index, task_id, state, try_number FROM task_instance "
    "WHERE map_index >= 0 AND run_id = (SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1)"
)


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


def connection(url: str) -> str:
    """As Airflow takes it from the environment."""
    given = conninfo_to_dict(url)
    found = {"host": given["host"], "port": int(given.get("port") or 5432)}
    found |= {"login": given["user"], "password": "hunter2hunter2", "schema": given["dbname"]}
    return json.dumps({"conn_type": "postgres", **found})


def test_each_queue_succeeds_alerts_is_tried_again_or_not_whatever_becomes_of_the_others(
    server: Url, templates: dict[str, str], tmp_path: Path
) -> None:
    """One run of the DAG for all of them, as Airflow takes half a minute to start."""
    params, config = tmp_path / "params.yaml", tmp_path / "queues.json"
    params.write_text("thresholds: ['hidden > 0']\n")
    names = ("healthy", "breached", "misspelled", "absent")
    pipelines = dict.fromkeys(names, "karaoke") | {"misspelled": "karaoky"}
    queues = [{"pipeline": pipelines[n], "connection": n, "params": str(params)} for n in names]
    config.write_text(json.dumps(queues))
    assert airflow(tmp_path, "db", "migrate").returncode == 0
    with incident(server, templates) as url:
        urls = {"breached": url, "absent": server("no_such_database")}
        connections = {n: connection(urls.get(n, server(templates["a"]))) for n in names}
        done = airflow(
            tmp_path,
            *("dags", "test", "queue_reports"),
            QUEUE_REPORTS=str(config),
            QUEUE_REPORTS_OUTPUT=str(tmp_path / "reports"),
            **{f"AIRFLOW_CONN_{name.upper()}": given for name, given in connections.items()},
        )
    said = done.stdout + done.stderr
    found: dict[str, dict[str, list[Any]]] = {name: {} for name in names}
    with sqlite3.connect(tmp_path / "airflow.db") as database:
        for number, task, *rest in database.execute(STATES):
            found[names[number]][task.removeprefix("each.")] = rest
    states = {name: {task: rest[0] for task, rest in each.items()} for name, each in found.items()}
    assert states["healthy"] == {"report": "success", "alert": "skipped"}, said
    assert states["breached"] == {"report": "success", "alert": "failed"}, said
    assert "breached: hidden > 0: 54" in said
    assert found["misspelled"]["report"] == ["failed", 1], said  # bad input is not tried again
    assert "unknown pipeline 'karaoky'" in said
    assert found["absent"]["report"] == ["failed", 3], said
    assert "does not exist" in said
    assert done.returncode == 1
    assert len([*(tmp_path / "reports").glob("*/report.html")]) == 2
    assert "hunter2" not in said
