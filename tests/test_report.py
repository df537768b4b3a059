"""``queue-insights report``: what a run leaves behind, and what it refuses before it runs."""

import csv
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bs4 import BeautifulSoup
from plotly.offline import get_plotlyjs
from prometheus_client.parser import text_string_to_metric_families

from conftest import Url
from queue_insights.pipeline import load
from reporting import (
    MISSING,
    QUOTED,
    SECRET,
    TITLES,
    incident,
    process,
    queue_insights,
    refused,
    write,
)

HIDDEN = sum(MISSING.values())
TABLES = ["audit", "failures", "eta", "by_stage", "missing", "stuck", "exhausted"]


@pytest.fixture(scope="module")
def backlog(
    server: Url, templates: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """One run of backlog_report, as cron would: with a password in the URL, and a python3 among the
    user's kernels that is none."""
    output = tmp_path_factory.mktemp("a {folder}") / "reports"
    metrics, home = output.parent / "queue.prom", output.parent / "home"
    impostor = output.parent / "kernels" / "python3"
    impostor.mkdir(parents=True)
    home.mkdir()
    specification = {"argv": ["/bin/false"], "display_name": "x", "language": "python"}
    (impostor / "kernel.json").write_text(json.dumps(specification))
    variables = {"JUPYTER_PATH": str(output.parent), "HOME": str(home), "PGPASSWORD": SECRET}
    given = {"timezone": "Europe/Berlin", "thresholds": "[hidden > 0, stuck > 1]", "limit": "50"}
    limits = [word for pair in given.items() for word in ("-p", *pair)]
    arguments = ("-f", "backlog_report", *limits, "--metrics", metrics, "--output", output)
    with incident(server, templates) as url:
        reads = {"missing": ["missing"], "stuck": ["tasks", "--state", "stuck"]}
        reads["exhausted"] = ["tasks", "--state", "exhausted"]
        lists = {
            f"{name}.csv": queue_insights(*read, "--format", "csv", url=url).stdout
            for name, read in reads.items()
        }
        url = url.replace("postgres@", f"postgres:{QUOTED}@", 1)
        done = process("report", "backlog_report", *arguments, url=url, **variables)
    assert done.returncode == 3, done.stderr
    assert list(home.iterdir()) == []
    summary, page = summary_of(done.stdout), Path(done.stdout.splitlines()[-1])
    text = page.read_text("utf-8")
    return SimpleNamespace(folder=page.parent, done=done, summary=summary, page=text, lists=lists)


def found(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def summary_of(stdout: str) -> dict[str, Any]:
    """The summary beside the page, whose path is the last line."""
    page = Path(stdout.splitlines()[-1])
    found: dict[str, Any] = json.loads(page.with_name("summary.json").read_text("utf-8"))
    return found


def test_a_run_is_a_folder_with_page_notebook_summary_and_tables(backlog: SimpleNamespace) -> None:
    folder = backlog.folder
    assert re.fullmatch(r"backlog_report-\d{8}T\d{6}Z", folder.name)
    files = {str(file.relative_to(folder)) for file in found(folder)}
    tables = {f"tables/{name}.csv" for name in TABLES}
    whole = {"report.html", "mail.html", "mail.txt", "summary.json", "backlog_report.ipynb"}
    assert files == whole | tables
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "index.html"}
    index = BeautifulSoup((folder.parent / "index.html").read_text("utf-8"), "html.parser")
    assert [link["href"] for link in index.select("a")] == [f"{folder.name}/report.html"]
    assert backlog.summary["verdict"] in index.text
    text = (folder / "mail.txt").read_text("utf-8")
    assert backlog.summary["verdict"] in " ".join(text.split())
    assert re.search(r"^ +align +50 +50  #+$", text, re.MULTILINE)
    # The last line is the page's path; cron gets no other noise.
    assert backlog.done.stdout.splitlines()[-1] == str(folder / "report.html")
    assert backlog.done.stderr == f"queue-insights: breached: hidden > 0: {HIDDEN}\n"
    said = backlog.done.stdout + "".join(path.read_text("utf-8") for path in found(folder.parent))
    assert not [secret for secret in (SECRET, QUOTED) if secret in said]


def test_the_summary_holds_the_key_figures_of_the_incident(backlog: SimpleNamespace) -> None:
    summary = backlog.summary
    assert (summary["schema_version"], summary["report"]) == (1, "backlog_report")
    assert (summary["pipeline"]["name"], summary["variant"]) == ("karaoke", "a")
    assert summary["pipeline"]["fingerprint"] == load().fingerprint
    given = {"pipeline": "karaoke", "limit": 50, "timezone": "Europe/Berlin"}
    assert summary["parameters"] == given
    figures = summary["figures"]
    assert list(figures)[:3] == ["waiting", "eligible", "hidden"]  # as shown, not as a file sorts
    expected = {"waiting": HIDDEN, "eligible": HIDDEN, "hidden": HIDDEN, "visible": 1}
    expected |= {"orphans": 1, "stuck": 1, "running": 0, "exhausted": 0}
    assert {name: figures[name] for name in expected} == expected
    assert 59 * 60 <= figures["oldest_waiting_seconds"] < 75 * 60
    assert [figures[f"eta_{level}_seconds"] for level in ("p50", "p80", "p95")] == [None] * 3
    assert summary["verdict"] == (
        f"{HIDDEN} tracks wait, all of them missing from dashboards; too little history to say "
        "when they will be done; 1 more is stuck."
    )
    assert summary["tables"] == TABLES
    assert summary["thresholds"] == ["hidden > 0", "stuck > 1"]
    assert [breach["threshold"] for breach in summary["breached"]] == ["hidden > 0"]
    # as_of is the moment of the snapshot.
    times = [summary[key] for key in ("started_at", "as_of", "finished_at")]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times)
    assert (datetime.now(UTC) - datetime.fromisoformat(times[1])).total_seconds() < 600


def test_metrics_are_gauges_of_the_key_figures(backlog: SimpleNamespace) -> None:
    text = (backlog.folder.parents[1] / "queue.prom").read_text("utf-8")
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    summary = backlog.summary
    expected = {k: v for k, v in summary["figures"].items() if type(v) in (int, float)}
    expected["thresholds_breached"] = 1
    for name, key in {"as_of": "as_of", "finished": "finished_at"}.items():
        seconds = datetime.fromisoformat(summary[key]).timestamp()
        expected[f"{name}_timestamp_seconds"] = seconds
    names = {sample.name.removeprefix("queue_insights_"): sample.value for sample in samples}
    assert names == expected
    labels = {"report": "backlog_report", "pipeline": "karaoke", "database": summary["database"]}
    assert all(sample.labels == labels for sample in samples)


def test_a_list_that_the_page_cuts_is_whole_in_its_file(backlog: SimpleNamespace) -> None:
    for name, text in backlog.lists.items():
        assert (backlog.folder / "tables" / name).read_text("utf-8") == text
    rows = list(csv.DictReader(backlog.lists["missing.csv"].splitlines(keepends=True)))
    assert len(rows) == HIDDEN
    arrivals = [row["arrived_at"] for row in rows]
    assert arrivals == sorted(arrivals)
    titles = {row["title"] for row in rows}
    assert {f"'{title}" if title[0] in "=+" else title for title in TITLES} <= titles
    assert not [cell for row in rows for cell in row.values() if cell[:1] in "=+-@" and cell]
    page = BeautifulSoup(backlog.page, "html.parser")
    (table,) = [t for t in page.select("table") if "Waiting without" in t.text]
    assert table.caption.text == f"Waiting without a task row: the first 50 of {HIDDEN}"
    shown = [row.td.text for row in table.select("tbody tr")]
    assert shown == [row["spotify_track_id"] for row in rows[:50]]
    (link,) = page.select("main a[href^=tables]")  # none where the page has all rows
    assert (link["href"], link.text) == ("tables/missing.csv", f"All {HIDDEN} rows")


def test_the_page_needs_nothing_from_outside_and_may_ask_for_nothing(
    backlog: SimpleNamespace,
) -> None:
    page = BeautifulSoup(backlog.page, "html.parser")
    (policy,) = [meta["content"] for meta in page.select("meta[http-equiv]")]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search(r"unsafe-eval|script-src[^;]*unsafe-inline", policy)
    scripts = page.select("script")
    assert [script.get("type") for script in scripts] == ["application/json"] * 2 + [None, None]
    assert not page.select("script[src], a[href^=http], img")
    assert backlog.page.count("plotly.js v") == get_plotlyjs().count("plotly.js v") == 1
    assert len(backlog.page.encode()) - len(get_plotlyjs().encode()) <= 300_000
    assert [link["href"] for link in page.select("link")] == ["data:,"]
    assert "queue.backlog()" not in backlog.page
    # Titles are text, under the verdict and both times.
    assert set(TITLES) <= {cell.text for cell in page.select("td")}
    assert page.select_one("h1").text == "Backlog report"
    said = (backlog.summary["verdict"], "UTC", "Europe/Berlin", "hidden > 0: 54")
    assert not [text for text in said if text not in page.select_one("header").text]
    assert [tile.dt.text for tile in page.select(".figures .bad")] == ["missing"]
    words = page.select(".plot")[0]["aria-label"]
    assert "align at audio_ready: 50 missing" in words


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    ran, output = tmp_path / "ran", tmp_path / "reports"
    cell = "count: int = 3\nflag: bool = False"
    path = write(tmp_path, f"open({str(ran)!r}, 'w')", parameters=cell)
    (tmp_path / "params.yaml").write_text("flag: 'false'\n")
    (tmp_path / "text.ipynb").write_text("[]")
    (tmp_path / "file").write_text("")
    takes = "unknown parameter 'cuont': mine takes count, flag, thresholds (did you mean 'count'?)"
    shipped = "act, backfill, backlog_report, explore, install_trigger, reset_tasks, throughput_eta"
    for arguments, complaint in {
        (path, "-p", "cuont", "4"): takes,
        (path, "-f", tmp_path / "params.yaml"): "flag: found 'false' (text), expected bool",
        (path, "-f", "backlog_report"): "-f backlog_report: unknown parameter 'pipeline'",
        (path, "-p", "thresholds", "[hidden]"): "thresholds: found 'hidden', expected a comparison",
        (path, "--metrics", tmp_path): "expected a file in a folder that exists",
        (path, "--keep", "all"): "--keep: found 'all', expected a number of runs, or an age",
        (path, "--output", tmp_path / "file"): f"--output {tmp_path / 'file'}: cannot be written: ",
        ("backlog_raport",): f"shipped are {shipped} (did you mean 'backlog_report'?)",
        (tmp_path / "no.ipynb",): "no.ipynb cannot be read: No such file",
        (tmp_path / "text.ipynb",): "text.ipynb: not a notebook (of format 4)",
    }.items():
        done = queue_insights("report", "--output", output, *arguments, cwd=tmp_path)
        refused(done, 2, complaint)
    assert not ran.exists()
    assert not output.exists()


def test_parameters_reach_the_notebook_with_their_types(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "from queue_insights import show",
        "show.figures({'count': count, 'flag': flag, 'ratio': ratio, 'task': task})",
        parameters="count: int = 3\nflag: bool = True\nratio: float = 0.5\ntask: str | None = None"
        "\nthresholds: list[str] = ['count >= 5']",
    )
    (tmp_path / "x.yaml").write_text("count: 4\nratio: 2\n")
    values = {"flag": "false", "count": "5", "task": "404"}
    given = ("-f", tmp_path / "x.yaml", *(w for pair in values.items() for w in ("-p", *pair)))
    done = queue_insights("report", path, *given, "--output", tmp_path)
    assert done.returncode == 3, done.stderr  # the notebook's own threshold
    summary = summary_of(done.stdout)
    assert summary["parameters"] == {"count": 5, "flag": False, "ratio": 2.0, "task": "404"}
    assert summary["figures"] == summary["parameters"]
    assert done.stderr == "queue-insights: breached: count >= 5: 5\n"


FAILING = {
    "1 / (x - 1)": (1, "mine: cell 2 (1 / (x - 1)) failed: ZeroDivisionError: division by zero"),
    "import os; os._exit(1)": (1, "mine: the notebook's kernel failed: Kernel died"),
    "show.figures({'hidden': 1})": (
        *(2, "unknown figure 'hiden': the report shows hidden (did you mean 'hidden'?)"),
    ),
    "connect('nowhere')": (2, "unknown pipeline 'nowhere'"),  # bad input is bad input
    "connect().backlog()": (1, "DatabaseError: nothing on 127.0.0.1:1: "),
}


@pytest.mark.parametrize("cell", FAILING)
def test_a_failing_notebook_is_one_line_and_kept_apart(tmp_path: Path, cell: str) -> None:
    code, words = FAILING[cell]
    path = write(tmp_path, "from queue_insights import connect, show; x = 1", cell)
    arguments = (path, "-p", "thresholds", "[hiden > 0]", "--output", tmp_path / "r")
    done = queue_insights("report", *arguments, url="postgresql://me:hunter2@127.0.0.1:1/nothing")
    line = refused(done, code, words)
    assert {path.name for path in (tmp_path / "r").iterdir()} == {"failed", "index.html"}
    (kept,) = (tmp_path / "r" / "failed").iterdir()
    assert line.endswith(f"its notebook is in {kept}")
    assert {file.name for file in kept.rglob("*.*")} == {"mine.ipynb", "summary.json"}
    index = BeautifulSoup((tmp_path / "r" / "index.html").read_text("utf-8"), "html.parser")
    assert index.a["href"] == f"failed/{kept.name}/mine.ipynb"
    assert words in index.text
    assert "hunter2" not in line + "".join(file.read_text("utf-8") for file in found(tmp_path))
