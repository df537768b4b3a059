"""``queue-insights report``: what a run leaves behind, and what it refuses before it runs."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from queue_insights import runs
from reporting import MISSING, ROOT, TITLES, incident, queue_insights


@dataclass
class Backlog:
    """One run of backlog_report, shared by the tests that look at it."""

    output: Path
    folder: Path
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text("utf-8"))

    @property
    def page(self) -> str:
        return (self.folder / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def database(server: Callable[[str], str], templates: dict[str, str]) -> Iterator[str]:
    with incident(server, templates) as url:
        yield url


@pytest.fixture(scope="module")
def backlog(database: str, tmp_path_factory: pytest.TempPathFactory) -> Backlog:
    output = tmp_path_factory.mktemp("a {folder}") / "reports"
    done = queue_insights(
        *("report", "backlog_report", "-f", ROOT / "params" / "backlog_report.yaml"),
        *("-p", "timezone", "Europe/Berlin", "--output", output),
        url=database,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = output.glob("backlog_report-*")
    return Backlog(output, folder, done.stdout, done.stderr)


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write a notebook of code cells, the first of them tagged as the parameters."""

    def write(*sources: str, parameters: str | None = None, name: str = "mine") -> Path:
        cells = [new_markdown_cell("# Mine"), *map(new_code_cell, sources)]
        if parameters is not None:
            cells.insert(1, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return write


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text people see."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.code = 0
        self._in_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells and self.lasttag == "td":
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_run_is_a_folder_with_page_notebook_summary_and_tables(backlog: Backlog) -> None:
    assert re.fullmatch(r"backlog_report-\d{8}T\d{6}Z", backlog.folder.name)
    files = {str(f.relative_to(backlog.folder)) for f in backlog.folder.rglob("*") if f.is_file()}
    assert files == {
        "report.html",
        "summary.json",
        "backlog_report.ipynb",
        "tables/audit.csv",
        "tables/by_stage.csv",
        "tables/eta.csv",
        "tables/missing.csv",
    }
    assert {path.name for path in backlog.output.iterdir()} == {backlog.folder.name, "index.html"}


def test_the_last_line_is_the_page_and_cron_gets_no_other_noise(backlog: Backlog) -> None:
    assert backlog.stdout.splitlines()[-1] == str(backlog.folder / "report.html")
    assert backlog.stderr == ""


def test_the_summary_holds_the_key_figures_of_the_incident(backlog: Backlog) -> None:
    summary = backlog.summary
    hidden = sum(MISSING.values())
    assert summary["schema_version"] == 1
    assert summary["report"] == "backlog_report"
    assert summary["pipeline"]["name"] == "karaoke"
    assert summary["parameters"] == {
        "pipeline": "karaoke",
        "limit": 100,
        "timezone": "Europe/Berlin",
    }
    figures = summary["figures"]
    expected = {"waiting": hidden, "eligible": hidden, "hidden": hidden, "visible": 1}
    expected |= {"orphans": 1, "stuck": 1, "running": 0, "exhausted": 0}
    assert {name: figures[name] for name in expected} == expected
    assert 59 * 60 <= figures["oldest_waiting_seconds"] < 75 * 60
    assert summary["verdict"] == (
        f"{hidden} tracks wait, all of them hidden; too little history to say when they will be "
        "done; 1 more is stuck."
    )
    assert [figures[f"eta_{level}_seconds"] for level in ("p50", "p80", "p95")] == [None] * 3
    assert summary["tables"] == ["audit", "eta", "by_stage", "missing"]
    assert (summary["thresholds"], summary["breached"]) == ([], [])


def test_as_of_is_the_moment_of_the_snapshot_in_utc(backlog: Backlog) -> None:
    times = [backlog.summary[key] for key in ("started_at", "as_of", "finished_at")]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times)
    age = datetime.now(UTC) - datetime.fromisoformat(times[1])
    assert age.total_seconds() < 600


def test_tables_are_complete_and_no_cell_is_a_formula(backlog: Backlog) -> None:
    text = (backlog.folder / "tables" / "missing.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert len(rows) == sum(MISSING.values())
    titles = {row["title"] for row in rows}
    for title in TITLES:
        assert ("'" + title if title[0] in "=+" else title) in titles
    assert not [cell for row in rows for cell in row.values() if cell[:1] in "=+-@" and cell]
    assert rows[0]["arrived_at"].endswith("Z")


def test_the_page_shows_titles_as_text_and_never_as_markup(backlog: Backlog) -> None:
    page = Page(backlog.page)
    assert set(TITLES) <= set(page.cells)
    assert not [a for a in page.all("img") if a.get("src") == "x"]
    scripts = [a.get("type") for a in page.all("script")]
    assert scripts == ["application/json"] * 3 + [None, None]


def test_the_page_needs_nothing_from_outside_and_may_ask_for_nothing(backlog: Backlog) -> None:
    page = Page(backlog.page)
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert not re.search(r"script-src[^;]*unsafe-inline", policy)
    assert not [a for a in page.all("script") if "src" in a]
    assert [a["href"] for a in page.all("link")] == ["data:,"]
    assert not [a for a in page.all("a") if a["href"].startswith("http")]


def test_the_page_carries_plotly_once_and_little_else(backlog: Backlog) -> None:
    from plotly.offline import get_plotlyjs

    assert backlog.page.count("plotly.js v") == get_plotlyjs().count("plotly.js v") == 1
    assert len(backlog.page.encode()) - len(get_plotlyjs().encode()) <= 300_000
    for unwanted in ("require.min.js", "mathjax/2", "MathJax.js", "<code", "queue.backlog()"):
        assert unwanted not in backlog.page


def test_verdict_and_both_times_stand_at_the_top_of_the_page(backlog: Backlog) -> None:
    header = backlog.page[backlog.page.index("<header>") : backlog.page.index("</header>")]
    assert backlog.summary["verdict"] in header
    assert "UTC" in header
    assert "Europe/Berlin" in header
    assert "<h1>Backlog report</h1>" in header


def test_the_executed_notebook_carries_charts_as_data(backlog: Backlog) -> None:
    executed = nbformat.read(backlog.folder / "backlog_report.ipynb", as_version=4)
    kinds = [set(o.get("data", {})) for c in executed.cells for o in c.get("outputs", [])]
    charts = [kind for kind in kinds if "application/vnd.plotly.v1+json" in kind]
    assert len(charts) == 3
    assert not any("text/html" in kind for kind in charts)


def test_the_index_lists_runs_newest_first(backlog: Backlog, notebook: Callable[..., Path]) -> None:
    done = queue_insights("report", notebook("1 + 1"), "--output", backlog.output)
    assert done.returncode == 0, done.stderr
    page = (backlog.output / "index.html").read_text("utf-8")
    links = [a["href"] for a in Page(page).all("a")]
    assert links == [
        str(Path(done.stdout.splitlines()[-1]).relative_to(backlog.output)),
        f"{backlog.folder.name}/report.html",
    ]
    assert backlog.summary["verdict"] in page


def test_what_the_notebook_does_not_take_is_refused_before_anything_runs(
    notebook: Callable[..., Path], tmp_path: Path
) -> None:
    ran, output = tmp_path / "ran", tmp_path / "reports"
    path = notebook(f"open({str(ran)!r}, 'w')", parameters="count: int = 3\nflag: bool = False")
    (tmp_path / "params.yaml").write_text("flag: 'false'\n")
    for given, complaint in {
        ("-p", "cuont", "4"): "unknown parameter 'cuont': mine takes count, flag, thresholds (did",
        ("-f", str(tmp_path / "params.yaml")): "flag: found 'false' (text), expected bool",
        ("--pipeline", "karaoke"): "unknown parameter 'pipeline'",
    }.items():
        done = queue_insights("report", path, *given, "--output", output)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert complaint in line
    assert not ran.exists()
    assert not output.exists()


def test_an_unknown_report_names_the_shipped_ones(tmp_path: Path) -> None:
    done = queue_insights("report", "backlog_raport", cwd=tmp_path)
    assert done.returncode == 2
    assert "shipped are " in done.stderr
    assert "backlog_report, explore" in done.stderr
    assert "did you mean 'backlog_report'?" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_parameters_reach_the_notebook_with_their_types(
    notebook: Callable[..., Path], tmp_path: Path
) -> None:
    path = notebook(
        "from queue_insights import show",
        "show.figures({'count': count, 'flag': flag, 'ratio': ratio, 'task': task})",
        parameters="count: int = 3\nflag: bool = True\nratio: float = 0.5\ntask: str | None = None",
    )
    (tmp_path / "params.yaml").write_text("count: 4\nratio: 2\n")
    done = queue_insights(
        *(
            "report",
            path,
            "-f",
            tmp_path / "params.yaml",
            "-p",
            "flag",
            "false",
            "-p",
            "count",
            "5",
        ),
        *("-p", "task", "404", "--output", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(Path(done.stdout.splitlines()[-1]).with_name("summary.json").read_text())
    assert summary["parameters"] == {"count": 5, "flag": False, "ratio": 2.0, "task": "404"}
    assert summary["figures"] == summary["parameters"]


def test_a_failing_notebook_is_kept_apart_and_never_listed(
    notebook: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "reports"
    done = queue_insights("report", notebook("x = 1", "1 / (x - 1)"), "--output", output)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "mine: cell 2 (1 / (x - 1)) failed: ZeroDivisionError: division by zero" in line
    (kept,) = (output / "failed").glob("*.ipynb")
    assert line.endswith(f"its notebook is {kept}")
    assert "ZeroDivisionError" in kept.read_text()
    assert {path.name for path in output.iterdir()} == {"failed", "index.html"}
    index = (output / "index.html").read_text("utf-8")
    assert "ZeroDivisionError" in index
    assert [a["href"] for a in Page(index).all("a")] == [f"failed/{kept.name}"]


def test_a_database_error_is_one_line_with_its_advice(tmp_path: Path) -> None:
    done = queue_insights(
        *("report", "backlog_report", "--output", tmp_path),
        url="postgresql://me:hunter2@127.0.0.1:1/nothing",
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "DatabaseError" in line
    assert "nothing on 127.0.0.1:1" in line
    everything = done.stdout + done.stderr
    everything += "".join(f.read_text() for f in tmp_path.rglob("*") if f.is_file())
    assert "hunter2" not in everything


def test_bad_input_found_by_the_notebook_is_exit_code_2(tmp_path: Path) -> None:
    done = queue_insights("report", "explore", "--pipeline", "nowhere", "--output", tmp_path)
    assert done.returncode == 2
    assert "unknown pipeline 'nowhere'" in done.stderr


def test_the_kernel_is_this_python_whatever_kernels_the_user_has(
    notebook: Callable[..., Path], tmp_path: Path
) -> None:
    impostor = tmp_path / "kernels" / "python3"
    impostor.mkdir(parents=True)
    (impostor / "kernel.json").write_text(
        json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"})
    )
    path = notebook(
        "import sys\nfrom queue_insights import show", "show.figures({'python': sys.executable})"
    )
    done = queue_insights("report", path, "--output", tmp_path / "out", JUPYTER_PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    summary = json.loads(Path(done.stdout.splitlines()[-1]).with_name("summary.json").read_text())
    assert summary["figures"] == {"python": sys.executable}


def test_two_runs_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    started_at = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
    made = []
    for _ in range(3):
        with runs.workspace(tmp_path) as folder:
            (folder / "summary.json").write_text("{}")
            made.append(runs.publish(folder, tmp_path, "x", started_at).name)
    assert made == ["x-20261122T103000Z", "x-20261122T103000Z-2", "x-20261122T103000Z-3"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", *made]


def test_what_a_killed_run_left_is_removed_but_not_a_living_one(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-dead").mkdir()
    with runs.workspace(tmp_path) as first, runs.workspace(tmp_path) as second:
        assert {p.name for p in tmp_path.iterdir()} == {first.name, second.name}
    assert list(tmp_path.iterdir()) == []
