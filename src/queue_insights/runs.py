"""Run folders: made beside one another, each complete or not there, and the index of them all."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from queue_insights import index, show
from queue_insights.errors import InputError

UNFINISHED = ".unfinished-"


@contextlib.contextmanager
def workspace(output: Path) -> Iterator[Path]:
    """A temporary folder beside the run folders, removed afterwards unless it was published.

    What killed runs left there is removed first: a run holds a lock for as long as it lives.
    """
    with contextlib.ExitStack() as held:
        try:
            output.mkdir(parents=True, exist_ok=True)
            with _locked(output):
                for left in output.glob(f"{UNFINISHED}*"):
                    with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                        shutil.rmtree(left, ignore_errors=True)
                folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=output))
                held.enter_context(_locked(folder))
                held.callback(shutil.rmtree, folder, ignore_errors=True)
        except OSError as error:
            raise InputError(f"--output {output}: cannot be written: {error.strerror}") from None
        yield folder


def publish(folder: Path, output: Path, name: str, started_at: datetime) -> Path:
    """Give *folder* its final, unique name in one step, and list it in the index."""
    mask = os.umask(0o077)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)  # temporary folders are private, runs are not
    with _locked(output):
        final = _free(output, name, started_at)
        folder.rename(final)
        index.write(output)
    return final


def keep_failed(
    notebook: Path, output: Path, name: str, started_at: datetime, error: str
) -> Path | None:
    """Note in ``failed/`` what went wrong, beside the notebook if it got so far, and list it.

    Returns where the notebook is. It is no run: nothing of it lies among the run folders.
    """
    folder = output / index.FAILED
    with _locked(output):
        folder.mkdir(exist_ok=True)
        note = _free(folder, name, started_at, ".json")
        kept = notebook.rename(note.with_suffix(".ipynb")) if notebook.is_file() else None
        failure = {"report": name, "started_at": show.iso(started_at), "error": error}
        index.write_text(note, json.dumps(failure, ensure_ascii=False))
        index.write(output)
    return kept


def prune(output: Path, name: str, keep: int | timedelta) -> None:
    """Remove the report's older runs, and its failures: all but the newest *keep*, or those older
    than that."""
    with _locked(output):
        for run in _expired(index.complete(output), name, keep):
            # Renamed first: a run that is half removed would still be listed.
            doomed = output / f"{UNFINISHED}{run['folder']}"
            (output / run["folder"]).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        for note in _expired(index.failed(output), name, keep):
            for suffix in (".ipynb", ".json"):
                (output / note["folder"]).with_suffix(suffix).unlink(missing_ok=True)
        index.write(output)


def _expired(
    found: list[dict[str, Any]], name: str, keep: int | timedelta
) -> Iterator[dict[str, Any]]:
    for position, run in enumerate(run for run in found if run["report"] == name):
        started_at = datetime.fromisoformat(run["started_at"])
        if position >= keep if isinstance(keep, int) else datetime.now(UTC) - started_at > keep:
            yield run


def _free(folder: Path, name: str, started_at: datetime, suffix: str = "") -> Path:
    """The first of NAME-TIME, NAME-TIME-2, … that is not taken; the caller holds the lock."""
    name, number = f"{name}-{started_at:%Y%m%dT%H%M%SZ}", 1
    while (path := folder / f"{name}{f'-{number}' if number > 1 else ''}{suffix}").exists():
        number += 1
    return path


@contextlib.contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
