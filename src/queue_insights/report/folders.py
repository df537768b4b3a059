"""Folders of reports beside one another, each complete or not there, and the index of them all."""

import contextlib
import fcntl
import itertools
import json
import os
import secrets
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
def unfinished(output: Path, start: dict[str, Any]) -> Iterator[Path]:
    """A new folder to make a report in; unless it is published, nothing is left of it.

    What fails with a ReportError or InputError is published as failed, with *start*: report and
    started_at. Raises InputError if *output* cannot be written, ReportError if that comes later.
    """
    folder = _nameless(output)
    with contextlib.ExitStack() as ends:
        try:
            output.mkdir(parents=True, exist_ok=True)
            with _locked(output):
                # What killed runs left; a running one has locked its folder.
                for left in output.glob(f"{_UNFINISHED}*"):
                    with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        shutil.rmtree(left, ignore_errors=True)
                folder.mkdir()
                ends.enter_context(_locked(folder))
                ends.callback(shutil.rmtree, folder, ignore_errors=True)
        except OSError as error:
            raise InputError(f"--output {output}: cannot be written: {error.strerror}") from None
        try:
            yield folder
        except OSError as error:
            raise ReportError(f"--output {output}: cannot be written: {error.strerror}") from error
        except (ReportError, InputError) as error:
            with contextlib.suppress(OSError):  # the disk may be full
                kept = publish(folder, start | {"error": str(error)})
                error.args = (f"{error}; its notebook is in {kept}",)
            raise


def publish(folder: Path, summary: dict[str, Any]) -> Path:
    """Write the *summary* into the folder, give it its name, REPORT-TIME, and list it in the index;
    returns its new path. One whose summary has an ``error`` goes to ``failed/``."""
    output = folder.parent
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    place = output / FAILED if "error" in summary else output
    name = f"{summary['report']}-{datetime.fromisoformat(summary['started_at']):%Y%m%dT%H%M%SZ}"
    with _locked(output):
        place.mkdir(exist_ok=True)
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        final = folder.rename(next(place / n for n in names if not (place / n).exists()))
        _write_index(output)
    return final


def listed(output: Path) -> list[dict[str, Any]]:
    """The summaries of all reports, newest first, the failed ones too. Each has its ``folder``."""
    found = []
    for file in [*output.glob(f"[!.]*/{SUMMARY}"), *output.glob(f"{FAILED}/[!.]*/{SUMMARY}")]:
        with contextlib.suppress(OSError, ValueError):
            entry = json.loads(file.read_text("utf-8"))
            if isinstance(entry, dict) and {"report", "started_at"} <= set(entry):
                found.append({**entry, "folder": file.parent})
    return sorted(found, key=lambda entry: (entry["started_at"], entry["folder"]), reverse=True)


def parse_keep(text: str) -> int | timedelta:
    """How much ``prune`` leaves: a number of reports, or an age. Raises InputError."""
    try:
        return int(text) if text.isdecimal() and int(text) else parse_duration(text)
    except ValueError:
        problem = f"found {text!r}, expected a number of runs, or an age such as 30d"
        raise InputError(f"--keep: {problem}") from None


def prune(output: Path, report: str, keep: int | timedelta) -> None:
    """Remove older folders of *report*, and of its failures: all but the newest *keep* of each, or
    those older than that."""
    with _locked(output):
        ours = [run for run in listed(output) if run["report"] == report]
        for runs in ([r for r in ours if "error" in r], [r for r in ours if "error" not in r]):
            if isinstance(keep, int):
                doomed = runs[keep:]
            else:
                oldest = formats.iso(datetime.now(UTC) - keep)
                doomed = [run for run in runs if run["started_at"] < oldest]
            for run in doomed:
                # Renamed first: a folder that is half removed would still be listed.
                shutil.rmtree(run["folder"].rename(_nameless(output)), ignore_errors=True)
        _write_index(output)


def _write_index(output: Path) -> None:
    """Write ``index.html`` anew, or leave what was there; the caller has locked the folder."""
    runs = listed(output)
    for run in runs:
        page = run["folder"] / (f"{run['report']}.ipynb" if "error" in run else PAGE)
        run["link"] = str(page.relative_to(output)) if page.exists() else None
    complete = output / f"{_UNFINISHED}index"
    complete.write_text(formats.TEMPLATES.get_template("runs.html.j2").render(runs=runs), "utf-8")
    complete.replace(output / "index.html")


def _nameless(output: Path) -> Path:
    return output / f"{_UNFINISHED}{secrets.token_hex(8)}"


@contextlib.contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
