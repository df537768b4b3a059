"""One notebook run by papermill in a kernel of this Python, which never outlives the run."""

import contextlib
import importlib.util
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from queue_insights import formats
from queue_insights.database import READ_URL, WRITE_URL
from queue_insights.errors import InputError, QueueInsightsError, Stopped

_LONGEST_SOCKET_FOLDER = 90  # characters; a socket's path ends at 103 bytes
_SHORTEST = 6  # characters of a password that is looked for in outputs
# The kernel watches for our death itself, once a second, unless a cell keeps it from doing so.
_DIE_WITH_PARENT = "--IPKernelApp.exec_lines=__import__('ctypes').CDLL(None).prctl(1, 9);"


class ReportError(QueueInsightsError):
    """A report's notebook failed, or what it made could not be written."""


def execute(
    notebook: dict[str, Any], name: str, working: Path, values: dict[str, Any], progress: bool
) -> Any:
    """Run *notebook*, JSON of format 4, with the parameters *values*; it is saved as *working*,
    failed or not, and returned as nbformat has it.

    Raises ReportError in one line naming cell and exception; InputError where that is what the
    notebook raised, or where there is no kernel to run it; Stopped on SIGTERM and Ctrl-C.
    """
    if importlib.util.find_spec("ipykernel") is None:
        raise InputError("this Python has no notebook kernel: pip install ipykernel")
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    # What it logs is said again by what it raises, and stderr is for one line.
    logging.getLogger("papermill").addHandler(logging.NullHandler())
    try:
        with _kernel() as options, _stoppable():
            executed = papermill.execute_notebook(
                nbformat.reads(json.dumps(notebook), as_version=4),  # type: ignore[no-untyped-call]
                str(working).replace("{", "{{").replace("}", "}}"),  # papermill formats it
                parameters=values,
                progress_bar=progress,
                request_save_on_cell_execute=False,
                **options,
            )
        return _redact(executed, working)
    except PapermillExecutionError as error:
        _redact(nbformat.read(working, as_version=4), working)  # type: ignore[no-untyped-call]
        raise _failed_cell(error, name) from error
    except KeyboardInterrupt as error:
        how = str(error) or "interrupted"
        raise Stopped(f"{name}: {how} while it ran; nothing was kept") from None
    except OSError:
        raise
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise ReportError(f"{name}: the notebook's kernel failed: {text}") from error


@contextlib.contextmanager
def _kernel() -> Iterator[dict[str, Any]]:
    """What makes papermill use a private kernel; whatever is left of it is killed at the end."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    started: list[AsyncKernelManager] = []
    with tempfile.TemporaryDirectory(prefix="queue-insights-") as private:

        class ThisPython(AsyncKernelManager):
            """This interpreter's kernel, whatever kernels are installed; nothing in the home."""

            def __init__(self, **options: Any):
                nowhere = KernelSpecManager(kernel_dirs=[])
                super().__init__(kernel_spec_manager=nowhere, **options)
                self.connection_file = os.path.join(private, "kernel.json")
                if len(private) < _LONGEST_SOCKET_FOLDER:
                    self.transport, self.ip = "ipc", os.path.join(private, "socket")
                started.append(self)

            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                own = {"IPYTHONDIR": private, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
                await super().start_kernel(env=os.environ | own, **options)

        try:
            yield {
                "kernel_name": "python3",
                "language": "python",
                "kernel_manager_class": ThisPython,
                "extra_arguments": [_DIE_WITH_PARENT] if sys.platform == "linux" else [],
                "shutdown_kernel": "immediate",
            }
        finally:
            for manager in started:
                process = getattr(manager.provisioner, "process", None)
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is open gets closed, the kernel first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt("stopped by SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed_cell(error: Any, name: str) -> ReportError | InputError:
    line = error.source.strip().partition("\n")[0]
    said = _without_secrets(str(error.evalue)).strip().partition("\n")[0]
    what = f"{error.ename}: {formats.visible(said, 500)}" if said else error.ename
    kind = InputError if error.ename == InputError.__name__ else ReportError
    return kind(f"{name}: cell {error.exec_count} ({formats.visible(line)}) failed: {what}")


def _redact(notebook: Any, file: Path) -> Any:
    """Take passwords that the environment holds out of what a notebook said, here and in *file*."""
    import nbformat

    for cell in notebook.cells:
        if "outputs" in cell:
            outputs = _without_secrets(cell.outputs)
            cell.outputs = nbformat.from_dict(outputs)  # type: ignore[no-untyped-call]
    nbformat.write(notebook, file)  # type: ignore[no-untyped-call]
    return notebook


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        for secret in _secrets():
            value = value.replace(secret, "***")
        return value
    if isinstance(value, Mapping):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


def _secrets() -> list[str]:
    """Passwords in the environment, as written and percent-encoded, the longest first."""
    found = {os.environ.get("PGPASSWORD", "")}
    for name in (READ_URL, WRITE_URL):
        with contextlib.suppress(psycopg.ProgrammingError):
            settings = conninfo_to_dict(os.environ.get(name, ""))
            found |= {str(settings.get(key, "")) for key in ("password", "sslpassword")}
    found |= {quote(secret, safe="") for secret in found}
    # Shorter ones would take the page apart, and are guessed as quickly.
    return sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True)
