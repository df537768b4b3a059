"""A report on each of many queues, spread over machines by Apache Airflow (3.0 or newer).

The file that QUEUE_REPORTS names lists the queues, as JSON; reading it is all that happens here but
for starting the toolkit, which lives in an environment of its own:

    [{"pipeline": "karaoke", "connection": "karaoke_db", "params": "/etc/queues/karaoke.yaml"},
     {"pipeline": "/etc/queues/podcasts.yaml", "connection": "podcasts_db"}]

``connection`` is the id of an Airflow connection (host, port, login, password, schema = database).
QUEUE_INSIGHTS names the toolkit's program, QUEUE_REPORTS_OUTPUT the folder of reports that all
workers share. Exit code 0 is success; 3, a breached threshold, is success and a failed ``alert``,
for whatever notifier is set up for failed tasks; 1 is tried again; 2, bad input, is not.
"""

import json
import os
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook, dag, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

PROGRAM = os.environ.get("QUEUE_INSIGHTS", "queue-insights")
OUTPUT = os.environ.get("QUEUE_REPORTS_OUTPUT", "reports")
RETRY_DELAY = timedelta(seconds=float(os.environ.get("QUEUE_REPORTS_RETRY_SECONDS", "300")))


def libpq(connection_id: str) -> dict[str, str]:
    """An Airflow connection as libpq's variables: the password is on no command line, in no log."""
    connection = BaseHook.get_connection(connection_id)
    found = {
        "PGHOST": connection.host,
        "PGPORT": connection.port,
        "PGUSER": connection.login,
        "PGPASSWORD": connection.password,
        "PGDATABASE": connection.schema,
    }
    return {name: str(value) for name, value in found.items() if value}


@dag(
    schedule="0 6 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["queue-insights"],
)
def queue_reports() -> None:
    @task
    def queues() -> list[dict[str, str]]:
        return json.loads(Path(os.environ["QUEUE_REPORTS"]).read_text("utf-8"))

    @task(
        retries=2,
        retry_delay=RETRY_DELAY,
        execution_timeout=timedelta(hours=1),
        map_index_template="{{ queue }}",
    )
    def report(queue: dict[str, str]) -> dict[str, Any]:
        """Run one report; its page and what it breached."""
        name = f"{queue['pipeline']} in {queue['connection']}"
        get_current_context()["queue"] = name
        command = [PROGRAM, "report", "backlog_report", "--pipeline", queue["pipeline"]]
        command += ["--output", OUTPUT, "--keep", "30d"]
        if "params" in queue:
            command += ["-f", queue["params"]]
        ours = {"QUEUE_INSIGHTS_URL", "QUEUE_INSIGHTS_WRITE_URL"}
        environment = {k: v for k, v in os.environ.items() if k not in ours}
        environment |= libpq(queue["connection"])
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        print(done.stdout, done.stderr, sep="\n")
        if done.returncode == 2:
            raise AirflowFailException(done.stderr)
        if done.returncode not in (0, 3):
            raise RuntimeError(done.stderr)
        breached = done.stderr.splitlines() if done.returncode == 3 else []
        return {"queue": name, "page": done.stdout.splitlines()[-1], "breached": breached}

    @task(map_index_template="{{ queue }}")
    def alert(result: dict[str, Any]) -> None:
        get_current_context()["queue"] = result["queue"]
        if not result["breached"]:
            raise AirflowSkipException("nothing is breached")
        lines = "\n".join(result["breached"])
        raise AirflowFailException(f"{result['queue']}: {result['page']}\n{lines}")

    # As a mapped group, so that a report that fails does not keep the others from alerting.
    @task_group
    def each(queue: dict[str, str]) -> None:
        alert(report(queue))

    each.expand(queue=queues())


queue_reports()
