"""install_trigger.ipynb, as papermill runs it: it changes nothing until it is told the strings."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.ddl import trigger
from queue_insights.queue import Queue
from reporting import ROOT, incident


@pytest.fixture
def url(server: Callable[[str], str], templates: dict[str, str]) -> Iterator[str]:
    with incident(server, templates, "b") as url:
        yield url


def run(url: str, folder: Path, **parameters: str) -> str:
    """Run the notebook; everything that it printed."""
    given = [part for name, value in parameters.items() for part in ("-r", name, value)]
    notebook, out = ROOT / "notebooks" / "install_trigger.ipynb", folder / "out.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", notebook, out]
    done = subprocess.run(
        [*command, *given],
        env={**os.environ, "QUEUE_INSIGHTS_URL": url},
        capture_output=True,
        text=True,
        timeout=300,
    )
    cells = nbformat.read(out, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(o.get("text", "") for o in outputs) + done.stderr


def test_it_installs_and_backfills_only_when_told_the_strings_that_it_prints(
    url: str, tmp_path: Path
) -> None:
    queue = Queue(Database(url), pipeline.load())
    hidden = int(queue.audit().hidden.sum())
    assert hidden > 0
    printed = run(url, tmp_path)
    confirm = re.search(r"give the parameter confirm: (\S+)", printed)
    backfill = re.search(r"give confirm_backfill: (\S+)", printed)
    assert confirm is not None
    assert backfill is not None
    assert len(trigger.verify(queue)) == 1
    assert int(queue.audit().hidden.sum()) == hidden

    assert "does not confirm this trigger" in run(url, tmp_path, confirm="true")
    assert len(trigger.verify(queue)) == 1

    done = run(url, tmp_path, confirm=confirm[1], confirm_backfill=backfill[1])
    assert "trigger installed on public.tracks" in done
    assert "Nothing is amiss." in done
    assert trigger.verify(queue) == []
    assert int(queue.audit().hidden.sum()) == 0
