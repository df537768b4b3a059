"""Folders of reports beside one another, each complete or not there, and the index of them all."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from queue_insights import formats
from queue_insights.errors import InputError
from queue_insights.pipeline import parse_duration
from queue_insights.report.execution import ReportError

SUMMARY, PAGE, FAILED = "summary.json", "report.html", "failed"
_UNFINISHED = ".unfinished-"


@contextlib.contextmanager
def new(output: Path, report: str, started_at: datetime) -> Iterator[tuple[Path, Path]]:
    """A folder to make a report in, and the path it has once that is done and it is listed.

    Of what fails nothing is left, but for InputError and ReportError: a note why and the notebook,
    as far as it got, go to ``failed/``, and the error says where. Raises InputError if *output*
    cannot be written, and ReportError if that happens later.
    """
    with contextlib.ExitStack() as ends:
        try:
            output.mkdir(parents=True, exist_ok=True)
            with _locked(output):
                # What killed runs left; a running one has locked its folder.
                for left in output.glob(f"{_UNFINISHED}*"):
                    with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        shutil.rmtree(left, ignore_errors=True)
                final = output / _free_name(output, f"{report}-{started_at:%Y%m%dT%H%M%SZ}")
                folder = output / f"{_UNFINISHED}{final.name}"
                folder.mkdir()
                ends.enter_context(_locked(folder))
                ends.callback(shutil.rmtree, folder, ignore_errors=True)
        except OSError as error:
            raise InputError(f"--output {output}: cannot be written: {error.strerror}") from None
        try:
            yield folder, final
            with _locked(output):
                folder.rename(final)
                _write_index(output)
        except OSError as error:
            why = error.strerror or error
            raise ReportError(f"--output {output}: cannot be written: {why}") from error
        except (ReportError, InputError) as error:
            failure = {"report": report, "started_at": formats.iso(started_at), "error": str(error)}
            note, kept = output / FAILED / f"{final.name}.json", ""
            with contextlib.suppress(OSError):  # the disk may be full
                kept = _keep_failed(note, failure, folder / f"{report}.ipynb")
            raise type(error)(f"{error}{kept}") from error


def _free_name(output: Path, name: str) -> str:
    """The first of NAME, NAME-2, NAME-3, … that is free; the caller has locked the folder."""
    free, number = name, 1
    places = "{}", f"{_UNFINISHED}{{}}", f"{FAILED}/{{}}.json"
    while any((output / place.format(free)).exists() for place in places):
        number += 1
        free = f"{name}-{number}"
    return free


def _keep_failed(note: Path, failure: dict[str, str], notebook: Path) -> str:
    """Write the *note*, move the notebook beside it if there is one, and say so if there is."""
    kept, output = "", note.parents[1]
    with _locked(output):
        note.parent.mkdir(exist_ok=True)
        if notebook.is_file():
            kept = f"; its notebook is {notebook.rename(note.with_suffix('.ipynb'))}"
        _write(note, json.dumps(failure, ensure_ascii=False))
        _write_index(output)
    return kept


def listed(output: Path) -> list[dict[str, Any]]:
    """What the index lists, newest first: a report's summary, or report, started_at and error of
    one that failed. Each has its ``file``, that summary or note."""
    found = []
    for file in [*output.glob(f"[!.]*/{SUMMARY}"), *output.glob(f"{FAILED}/[!.]*.json")]:
        with contextlib.suppress(OSError, ValueError):
            entry = json.loads(file.read_text("utf-8"))
            if isinstance(entry, dict) and {"report", "started_at"} <= set(entry):
                found.append({**entry, "file": file})
    return sorted(found, key=lambda entry: (entry["started_at"], entry["file"]), reverse=True)


def parse_keep(text: str) -> int | timedelta:
    """How much ``prune`` leaves: a number of reports, or an age. Raises InputError."""
    try:
        return int(text) if text.isdecimal() and int(text) else parse_duration(text)
    except ValueError:
        expected = "expected a number of runs, or an age such as 30d"
        raise InputError(f"--keep: found {text!r}, {expected}") from None


def prune(output: Path, report: str, keep: int | timedelta) -> None:
    """Remove older folders of *report*, and its failures: all but the newest *keep* of each, or
    those older than that."""
    kept = {False: 0, True: 0}
    with _locked(output):
        for entry in [entry for entry in listed(output) if entry["report"] == report]:
            file, is_failure = entry["file"], entry["file"].name != SUMMARY
            age = datetime.now(UTC) - datetime.fromisoformat(entry["started_at"])
            if kept[is_failure] < keep if isinstance(keep, int) else age <= keep:
                kept[is_failure] += 1
            elif is_failure:
                for suffix in (".ipynb", ".json"):
                    file.with_suffix(suffix).unlink(missing_ok=True)
            else:
                # Renamed first: a folder that is half removed would still be listed.
                doomed = output / f"{_UNFINISHED}{file.parent.name}"
                file.parent.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)
        _write_index(output)


def _write_index(output: Path) -> None:
    """Write ``index.html`` anew; the caller has locked the folder."""
    from jinja2 import Environment, PackageLoader

    entries = listed(output)
    last: dict[tuple[Any, ...], dict[str, Any]] = {}  # of each report on each queue, its figures
    for entry in reversed(entries):
        target = entry["file"].with_suffix(".ipynb")
        if entry["file"].name == SUMMARY:
            target = entry["file"].with_name(PAGE)
            pipeline = (entry.get("pipeline") or {}).get("name")
            queue = (entry["report"], entry.get("database"), pipeline)
            entry["before"] = last.get(queue, {})
            last[queue] = entry.get("figures", {})
        entry["link"] = str(target.relative_to(output)) if target.exists() else None
    environment = Environment(loader=PackageLoader("queue_insights.report"), autoescape=True)
    environment.filters |= {"label": formats.label, "cell": formats.cell}
    _write(output / "index.html", environment.get_template("runs.html.j2").render(runs=entries))


def _write(file: Path, text: str) -> None:
    """Write a complete file, or leave what was there; the caller has locked the folder."""
    temporary = file.with_name(f".{file.name}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
