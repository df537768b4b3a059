"""What is released: an sdist and a wheel that work alone, far from this checkout."""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    with tarfile.open(only(released, "*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    build(only(tmp_path, "queue_insights-*"), tmp_path / "dist", "wheel")
    assert contents(only(tmp_path / "dist", "*.whl")) == found


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
