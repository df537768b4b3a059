"""One notebook run by papermill in a kernel of this Python, which never outlives the run."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from queue_insights.database import READ_URL, WRITE_URL
from queue_insights.errors import InputError, QueueInsightsError, Stopped
from queue_insights.formats import visible
from queue_insights.show import TABLES

# Linux kills the kernel when this process dies, even in the middle of a cell.
_DIE_WITH_PARENT = "--IPKernelApp.exec_lines=__import__('ctypes').CDLL(None).prctl(1, 9);"


class ReportError(QueueInsightsError):
    """A report's notebook failed, or what it made could not be written."""


def execute(
    notebook: dict[str, Any], name: str, working: Path, values: dict[str, Any], progress: bool
) -> Any:
    """Run *notebook*, JSON of format 4, with the parameters *values*; it is saved as *working*,
    failed or not, without passwords, and returned as nbformat has it. Lists that it saves are in
    the folder ``tables`` beside it, without passwords.

    Raises ReportError in one line naming cell and exception; InputError where that is what the
    notebook raised; Stopped on SIGTERM and Ctrl-C.
    """
    # Two seconds of jsonschema's imports are for checks of international addresses: here are none.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    # What papermill logs it also raises, and stderr is for one line.
    logging.getLogger("papermill").addHandler(logging.NullHandler())
    working.write_text(json.dumps(notebook), "utf-8")
    file = str(working).replace("{", "{{").replace("}", "}}")  # papermill formats it
    failure: QueueInsightsError | None = None
    tables = working.resolve().with_name("tables")
    tables.mkdir()
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with _kernel(tables) as options:
            options |= {"progress_bar": progress, "request_save_on_cell_execute": False}
            papermill.execute_notebook(file, file, values, **options)
    except KeyboardInterrupt as error:
        how = str(error) or "interrupted"
        raise Stopped(f"{name}: {how} while it ran; nothing was kept") from None
    except PapermillExecutionError as error:
        failure = _failed_cell(error, name)
    except OSError:
        raise
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        failure = ReportError(f"{name}: the notebook's kernel failed: {text}")
    finally:
        signal.signal(signal.SIGTERM, before)
    executed = _without_passwords(json.loads(working.read_text("utf-8")))
    working.write_text(json.dumps(executed, ensure_ascii=False, indent=1), "utf-8")
    if failure:
        shutil.rmtree(tables)  # a list may be half written
        raise failure
    for table in [*tables.iterdir()]:
        _rewrite_without_passwords(table)
    return nbformat.reads(json.dumps(executed), as_version=4)  # type: ignore[no-untyped-call]


def _stop(number: int, frame: object) -> None:
    """On SIGTERM: an exception, so that what is open gets closed, the kernel first."""
    raise KeyboardInterrupt("stopped by SIGTERM")


@contextlib.contextmanager
def _kernel(tables: Path) -> Iterator[dict[str, Any]]:
    """The options that make papermill use this interpreter's kernel, whatever kernels there are. It
    saves lists in *tables*, leaves nothing in the home folder, and is killed at the end at the
    latest."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    started: list[AsyncKernelManager] = []
    with tempfile.TemporaryDirectory(prefix="queue-insights-") as private:
        own = {"IPYTHONDIR": private, "PYDEVD_DISABLE_FILE_VALIDATION": "1", TABLES: str(tables)}
        files = {"connection_file": os.path.join(private, "kernel.json")}
        if len(private) < 90:  # the path of a Unix socket, which nobody can listen in on, is short
            files |= {"transport": "ipc", "ip": os.path.join(private, "socket")}

        class ThisPython(AsyncKernelManager):
            def __init__(self, **options: Any):
                shipped = KernelSpecManager(kernel_dirs=[])
                super().__init__(kernel_spec_manager=shipped, **files, **options)
                started.append(self)

            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                await super().start_kernel(env=os.environ | own, **options)

        try:
            yield {
                "kernel_name": "python3",
                "language": "python",
                "kernel_manager_class": ThisPython,
                "shutdown_kernel": "immediate",
                "extra_arguments": [_DIE_WITH_PARENT] if sys.platform == "linux" else [],
            }
        finally:
            for manager in started:
                if process := getattr(manager.provisioner, "process", None):
                    process.kill()
                    process.wait()


def _failed_cell(error: Any, name: str) -> ReportError | InputError:
    cell, said = (text.strip().partition("\n")[0] for text in (error.source, str(error.evalue)))
    said = visible(_without_passwords(said), 500)
    kind = InputError if error.ename == InputError.__name__ else ReportError
    return kind(f"{name}: cell {error.exec_count} ({visible(cell)}) failed: {error.ename}: {said}")


def _passwords() -> re.Pattern[str]:
    """What finds each password that the environment holds."""
    found = {os.environ.get("PGPASSWORD", "")}
    for name in (READ_URL, WRITE_URL):
        with contextlib.suppress(psycopg.ProgrammingError):
            settings = conninfo_to_dict(os.environ.get(name, ""))
            found |= {str(settings.get(key, "")) for key in ("password", "sslpassword")}
    found |= {quote(password, safe="") for password in found}
    found |= {password.replace('"', '""') for password in found}  # as in a CSV file
    # To take out shorter ones would spoil the page, and they are as quickly guessed.
    long = sorted((password for password in found if len(password) >= 6), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, long)) or "(?!)")


def _without_passwords(value: Any) -> Any:
    """*value*, JSON-like, with ``***`` for each password in its texts; keys stay as they are."""
    passwords = _passwords()

    def replaced(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: replaced(item) for key, item in part.items()}
        if isinstance(part, list):
            return [replaced(item) for item in part]
        return passwords.sub("***", part) if isinstance(part, str) else part

    return replaced(value)


def _rewrite_without_passwords(file: Path) -> None:
    """The same for a text *file*, line by line: it may be longer than the memory."""
    passwords, clean = _passwords(), file.with_suffix(".clean")
    with file.open(encoding="utf-8", newline="\n") as lines, clean.open("w", -1, "utf-8") as to:
        to.writelines(passwords.sub("***", line) for line in lines)
    clean.replace(file)
