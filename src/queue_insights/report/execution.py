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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from queue_insights.errors import InputError, QueueInsightsError, Stopped
from queue_insights.formats import visible
from queue_insights.report.redaction import without_passwords

# Linux kills the kernel when this process dies, even in the middle of a cell.
_DIE_WITH_PARENT = "--IPKernelApp.exec_lines=__import__('ctypes').CDLL(None).prctl(1, 9);"


class ReportError(QueueInsightsError):
    """A report's notebook failed, or what it made could not be written."""


def execute(
    notebook: dict[str, Any], name: str, working: Path, values: dict[str, Any], progress: bool
) -> Any:
    """Run *notebook*, JSON of format 4, with the parameters *values*; it is saved as *working*,
    failed or not, and returned as nbformat has it, without passwords in its outputs.

    Raises ReportError in one line naming cell and exception; InputError where that is what the
    notebook raised, or where there is no kernel to run it; Stopped on SIGTERM and Ctrl-C.
    """
    if importlib.util.find_spec("ipykernel") is None:
        raise InputError("this Python has no notebook kernel: pip install ipykernel")
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    # What papermill logs it also raises, and stderr is for one line.
    logging.getLogger("papermill").addHandler(logging.NullHandler())
    try:
        with _sigterm_raises(), _kernel() as options:
            papermill.execute_notebook(
                nbformat.reads(json.dumps(notebook), as_version=4),  # type: ignore[no-untyped-call]
                str(working).replace("{", "{{").replace("}", "}}"),  # papermill formats it
                parameters=values,
                progress_bar=progress,
                request_save_on_cell_execute=False,
                **options,
            )
        return _redacted(working)
    except PapermillExecutionError as error:
        _redacted(working)
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
    """The options that make papermill use a private kernel, which is killed at the end at the
    latest."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    started: list[AsyncKernelManager] = []
    with tempfile.TemporaryDirectory(prefix="queue-insights-") as private:
        own = {"IPYTHONDIR": private, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        files = {"connection_file": os.path.join(private, "kernel.json")}
        if len(private) < 90:  # the path of a Unix socket is at most 103 bytes long
            files |= {"transport": "ipc", "ip": os.path.join(private, "socket")}

        class ThisPython(AsyncKernelManager):
            """This interpreter's kernel, whatever kernels are installed; nothing in the home."""

            def __init__(self, **options: Any):
                shipped = KernelSpecManager(kernel_dirs=[])
                super().__init__(kernel_spec_manager=shipped, **files, **options)
                started.append(self)

            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                await super().start_kernel(env=os.environ | own, **options)

        try:
            yield {
                **{"kernel_name": "python3", "language": "python"},
                **{"kernel_manager_class": ThisPython, "shutdown_kernel": "immediate"},
                "extra_arguments": [_DIE_WITH_PARENT] if sys.platform == "linux" else [],
            }
        finally:
            for manager in started:
                if process := getattr(manager.provisioner, "process", None):
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is open gets closed, the kernel first."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt("stopped by SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed_cell(error: Any, name: str) -> ReportError | InputError:
    line = error.source.strip().partition("\n")[0]
    said = without_passwords(str(error.evalue)).strip().partition("\n")[0]
    what = f"{error.ename}: {visible(said, 500)}" if said else error.ename
    kind = InputError if error.ename == InputError.__name__ else ReportError
    return kind(f"{name}: cell {error.exec_count} ({visible(line)}) failed: {what}")


def _redacted(file: Path) -> Any:
    """The notebook in *file*, after passwords were taken out of its outputs, there too."""
    import nbformat

    notebook = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if "outputs" in cell:
            outputs = without_passwords(cell.outputs)
            cell.outputs = nbformat.from_dict(outputs)  # type: ignore[no-untyped-call]
    nbformat.write(notebook, file)  # type: ignore[no-untyped-call]
    return notebook
