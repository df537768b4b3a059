"""backfill, reset_tasks, act and install_trigger.ipynb: they change nothing until they are told the
strings that they print, and show before and after."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psycopg
import pytest
import yaml

from conftest import Url
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.ddl import trigger
from queue_insights.queue import Queue
from queue_insights.report import parameters
from reporting import MISSING, ROOT, incident, queue_insights, refused


@pytest.fixture
def url(server: Url, templates: dict[str, str]) -> Iterator[str]:
    with incident(server, templates, "b") as url:
        yield url


def rows(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT * FROM audio_tasks ORDER BY id").fetchall()


def sides(folder: Path) -> dict[str, dict[str, str]]:
    """The table of before and after, by task."""
    text = (folder / "tables" / "before_and_after.csv").read_text("utf-8")
    return {row["task_type"]: row for row in csv.DictReader(text.splitlines())}


def report(url: str, output: Path, name: str, *arguments: str | Path) -> tuple[Path, str]:
    """The folder of a run that goes well, and what its notebook printed."""
    done = queue_insights("report", name, *arguments, "--output", output, url=url)
    assert done.returncode == 0, done.stderr
    (folder,) = output.glob(f"{name}-*")
    cells = nbformat.read(folder / f"{name}.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return folder, "".join(output.get("text", "") for output in outputs)


@pytest.mark.parametrize("notebook", ["backfill", "reset_tasks", "act"])
@pytest.mark.parametrize("how", ["plan", "unattended"])
def test_each_parameter_file_fits_its_notebook(notebook: str, how: str) -> None:
    read = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    values = yaml.safe_load((ROOT / "params" / f"{notebook}_{how}.yaml").read_text())
    known = parameters.declared(read, notebook)
    assert parameters.validated(known, values, [], notebook, "-f") == values
    assert ("max_rows" in values) == (how == "unattended")
    assert "confirm" not in values


def planned_and_done(url: str, folder: Path, name: str) -> Path:
    """The folder of a run with the token that the plan printed, which changed nothing."""
    before = rows(url)
    file = ROOT / "params" / f"{name}_plan.yaml"
    _, printed = report(url, folder / "plan", name, "-f", file)
    assert rows(url) == before
    assert "Nothing was changed." in printed
    (token,) = re.findall(r"^confirm: (\S+)$", printed, re.MULTILINE)
    return report(url, folder / "done", name, "-f", file, "-p", "confirm", token)[0]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("name", "task", "state", "count"),
    [("backfill", "align", "missing", 50), ("reset_tasks", "segment", "stuck", 1)],
)
def test_it_plans_then_does_it_with_the_token_that_it_printed_and_shows_both_sides(
    url: str, tmp_path: Path, name: str, task: str, state: str, count: int
) -> None:
    before = rows(url)
    folder = planned_and_done(url, tmp_path, name)
    found = sides(folder)[task]
    figures = {key: found[key] for key in (f"{state}_before", f"{state}_after")}
    assert list(figures.values()) == [str(count), "0"]
    assert (found["pending_before"], found["pending_after"]) == ("0", str(count))
    assert found["total_before"] == found["total_after"]
    ages = [float(age) for key, age in found.items() if key.startswith("oldest_waiting_seconds")]
    assert len(ages) == 2 * (name == "backfill")
    assert max(ages, default=0) - min(ages, default=0) < 120
    assert len([row for row in rows(url) if row not in before]) == count
    if name == "reset_tasks":
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        assert summary["figures"]["stuck"] == 0


@pytest.mark.proof
def test_unattended_it_does_no_more_than_it_may(url: str, tmp_path: Path) -> None:
    before = rows(url)
    shipped, file = ROOT / "params" / "backfill_unattended.yaml", tmp_path / "params.yaml"
    one_less = {"max_rows": sum(MISSING.values()) - 1}
    file.write_text(yaml.safe_dump(yaml.safe_load(shipped.read_text()) | one_less))
    done = queue_insights("report", "backfill", "-f", file, "--output", tmp_path, url=url)
    refused(done, 1, "54", "53")
    assert rows(url) == before

    report(url, tmp_path / "done", "backfill", "-f", shipped)
    assert len(rows(url)) == len(before) + sum(MISSING.values())


@pytest.mark.proof
def test_only_the_printed_strings_install_and_backfill(url: str, tmp_path: Path) -> None:
    queue = Queue(Database(url), pipeline.load())
    before = rows(url)
    _, printed = report(url, tmp_path / "plan", "install_trigger")
    (confirm,) = re.findall(r"give the parameter confirm: (\S+)", printed)
    (backfill,) = re.findall(r"give confirm_backfill: (\S+)", printed)
    wrong = ("report", "install_trigger", "-p", "confirm", "true", "--output", tmp_path / "wrong")
    refused(queue_insights(*wrong, url=url), 2, "does not confirm this trigger")
    assert len(trigger.verify(queue)) == 1
    assert rows(url) == before

    given = ("-p", "confirm", confirm, "-p", "confirm_backfill", backfill)
    _, printed = report(url, tmp_path / "done", "install_trigger", *given)
    assert "trigger installed on public.tracks" in printed
    assert "Nothing is amiss." in printed
    assert trigger.verify(queue) == []
    assert int(queue.audit().hidden.sum()) == 0


@pytest.mark.proof
def test_act_does_what_it_planned_for_the_chosen_tracks(url: str, tmp_path: Path) -> None:
    queue = Queue(Database(url), pipeline.load())
    before = rows(url)
    chosen = list(queue.plan_prune().preview(3)["spotify_track_id"])
    given = [
        part
        for pair in (("action", "prune"), ("ids", json.dumps(chosen)))
        for part in ("-p", *pair)
    ]
    folder, printed = report(url, tmp_path / "plan", "act", *given)
    assert "Nothing was changed." in printed
    planned = (folder / "tables" / "plan.csv").read_text("utf-8")
    assert sum(int(row["rows"]) for row in csv.DictReader(planned.splitlines())) == len(chosen)
    (token,) = re.findall(r"^confirm: (\S+)$", printed, re.MULTILINE)
    report(url, tmp_path / "done", "act", *given, "-p", "confirm", token)
    assert len([row for row in before if row not in rows(url)]) == len(chosen)
    queue.run(int(queue.runs()["run"].iloc[0])).undo()
    assert rows(url) == before
