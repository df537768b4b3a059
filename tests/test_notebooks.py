"""The shipped notebooks: in git without outputs, and run by papermill alone as by hand."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from conftest import Url
from queue_insights.report import parameters
from reporting import MISSING, ROOT, incident

READING = ("backlog_report", "explore", "throughput_eta")
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def database(server: Url, templates: dict[str, str]) -> Iterator[str]:
    with incident(server, templates, "b") as url:
        yield url


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_one_parameters_cell_short_cells_and_no_outputs(name: str) -> None:
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert max(len(cell.source.splitlines()) for cell in code) <= 12
    assert not [cell for cell in code if cell.outputs or cell.execution_count]


@pytest.mark.parametrize("name", NAMES)
def test_papermill_itself_sees_every_parameter_and_its_file_fits(name: str) -> None:
    seen = papermill.inspect_notebook(str(ROOT / "notebooks" / f"{name}.ipynb"))
    known = parameters.declared(read(name), name)
    types = {key: parameter.annotation for key, parameter in known.items()}
    assert {key: found["inferred_type_name"] for key, found in seen.items()} == types
    if name in READING:
        values = yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())
        assert parameters.validated(known, values, [], name, "-f") == values
        assert set(values) == set(known)


@pytest.mark.proof
@pytest.mark.parametrize("name", READING)
def test_it_runs_with_plain_papermill(name: str, database: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", "--no-progress-bar"),
            *(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "out.ipynb"),
            *("-f", ROOT / "params" / f"{name}.yaml"),
        ],
        env={**os.environ, "QUEUE_INSIGHTS_URL": database},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outputs = [
        output
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
    ]
    charts = [o.data for o in outputs if "application/vnd.plotly.v1+json" in o.get("data", {})]
    assert charts
    assert all("<tr>" in chart["text/html"] for chart in charts)  # for where there is no plotly
    texts = [o["data"]["text/plain"] for o in outputs if "data" in o]
    assert any(text.startswith(f"{sum(MISSING.values())} tracks wait") for text in texts)
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
