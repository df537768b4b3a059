"""What is released: an sdist and a wheel that work alone, far from this checkout."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output

ROOT = Path(__file__).parents[1]
PACKAGE = "queue_insights"
PATIENCE = 600  # seconds; an empty pip cache fills from the index


def run(*command: str | Path, cwd: Path, expected: int = 0, **environment: str) -> str:
    """Run *command* as somebody would who has no checkout and no database; what it prints."""
    ours = ("PYTHON", "QUEUE_INSIGHTS_", "PG", "COV", "VIRTUAL_ENV")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout


def build(source: Path, target: Path, *kinds: str) -> None:
    wanted = [word for kind in kinds for word in ("-t", kind)]
    backend = (sys.executable, "-m", "hatchling", "build")
    run(*backend, *wanted, "--directory", target, cwd=source)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    target = tmp_path_factory.mktemp("dist")
    build(ROOT, target, "sdist", "wheel")
    return target


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def unpacked(released: Path, target: Path) -> Path:
    """The folder of the sdist, unpacked in *target*."""
    with tarfile.open(only(released, "*.tar.gz")) as archive:
        archive.extractall(target, filter="data")
    return only(target, "queue_insights-*")


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def shipped() -> set[str]:
    """What the wheel is to hold: the code, and beside it notebooks/ and params/."""
    roots = {ROOT / "src" / PACKAGE: "", ROOT / "notebooks": "notebooks", ROOT / "params": "params"}
    return {
        str(Path(PACKAGE, place, file.relative_to(root)))
        for root, place in roots.items()
        for file in root.rglob("*")
        if file.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(file.parts)
    }


def test_the_wheel_holds_code_notebooks_and_parameters_and_the_sdist_builds_the_same(
    released: Path, tmp_path: Path
) -> None:
    found = contents(only(released, "*.whl"))
    assert found == shipped()
    for name in ("notebooks/backlog_report.ipynb", "params/pipelines/karaoke.yaml"):
        assert f"{PACKAGE}/{name}" in found
    assert f"{PACKAGE}/actions/sql/ledger.sql" in found
    source = unpacked(released, tmp_path)
    build(source, tmp_path / "dist", "wheel")
    assert contents(only(tmp_path / "dist", "*.whl")) == found


def test_the_sdist_has_what_its_pages_link_to(released: Path, tmp_path: Path) -> None:
    source = unpacked(released, tmp_path)
    pages = [source / "README.md", *(source / "docs").glob("*.md")]
    assert len(pages) > 5
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_what_jupyterlab_leaves_in_a_checkout_is_not_in_the_wheel(
    released: Path, tmp_path: Path
) -> None:
    source = unpacked(released, tmp_path)
    for folder in (source / "notebooks", source / "params", source / "src" / PACKAGE):
        (folder / ".ipynb_checkpoints").mkdir()
        for name in ("a.ipynb", "a.yaml", "a.py"):
            (folder / ".ipynb_checkpoints" / name).write_text("{}")
    notebook = nbformat.read(source / "notebooks" / "explore.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        cell.outputs, cell.execution_count = [new_output("stream", text="of mine")], 7
    nbformat.write(notebook, source / "notebooks" / "explore.ipynb")
    build(source, tmp_path / "dist", "wheel")
    wheel = only(tmp_path / "dist", "*.whl")
    assert contents(wheel) == shipped()
    with zipfile.ZipFile(wheel) as archive:
        inside = nbformat.reads(archive.read(f"{PACKAGE}/notebooks/explore.ipynb"), as_version=4)
    assert [cell.source for cell in inside.cells] == [cell.source for cell in notebook.cells]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in inside.cells)


@pytest.fixture
def demo_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="queue-insights-release-", dir="/var/tmp") as folder:
        yield folder  # open to nobody


@pytest.mark.proof
def test_the_wheel_alone_in_an_empty_venv_runs_the_demo_doctor_and_a_report(
    released: Path, tmp_path: Path, demo_folder: str
) -> None:
    """One test, because filling the venv takes most of its time."""
    venv, away = tmp_path / "a venv", tmp_path / "away"
    away.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=away)
    python = venv / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install")
    pip += ("--quiet", "--disable-pip-version-check", "--no-compile")
    wheel = f"{only(released, '*.whl')}[demo]"
    run(*pip, "--constraint", ROOT / "constraints.txt", wheel, cwd=away)
    where = run(python, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)", cwd=away)
    assert Path(where).is_relative_to(venv)
    (finds,) = re.findall(r'^python -c "(.*)"$', (ROOT / "README.md").read_text("utf-8"), re.M)
    notebooks = Path(run(python, "-c", finds, cwd=away).strip())
    assert notebooks.is_relative_to(venv)
    assert (notebooks / "backlog_report.ipynb").is_file()

    def queue_insights(*arguments: str, expected: int = 0) -> list[str]:
        program = venv / "bin" / "queue-insights"
        found = run(
            program, *arguments, cwd=away, expected=expected, QUEUE_INSIGHTS_DEMO_DIR=demo_folder
        )
        return found.splitlines()

    said = queue_insights("demo", "--tracks", "2000")
    assert "before: 50 tracks at audio_ready, 0 pending align rows" in said
    findings = queue_insights("doctor")
    assert findings
    assert not [line for line in findings if line.startswith("fix")]
    said = queue_insights("report", "backlog_report", "-f", "backlog_report", expected=3)
    page = away / said[-1]
    summary = json.loads(page.with_name("summary.json").read_text("utf-8"))
    assert (summary["report"], summary["variant"]) == ("backlog_report", "a")
    assert page.read_text("utf-8").lower().startswith("<!doctype html>")
    assert sorted(path.name for path in away.iterdir()) == ["reports"]
