"""How far a run is: a bar where somebody watches, plain lines where nobody does."""

import logging
import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

EVERY = 30.0  # seconds between lines where there is no terminal

log = logging.getLogger("queue_insights")


def watched() -> bool:
    """Whether a person sees this process: a terminal, or a notebook open in JupyterLab (which
    papermill and cron do not have)."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ


class Progress:
    """Rows per second and time left of one run."""

    def __init__(self, run: Mapping[str, Any]):
        undoing = run["undoing"]
        self.title = f"{'undo' if undoing else run['action']} (run {run['run']})"
        self.total = run["rows_done"] if undoing else run["rows_planned"]
        settled = ("rows_undone", "rows_kept") if undoing else ("rows_done", "rows_dropped")
        self.done = sum(run[name] for name in settled)
        self._first, self._started = self.done, time.monotonic()
        self._said = self._started
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if watched():
            # Not tqdm.auto: it warns, into the notebook, where ipywidgets is not installed.
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total, initial=self.done, desc=self.title, unit="row", unit_scale=True
            )
        return self

    def advance(self, rows: int) -> None:
        """Count *rows* more as settled."""
        self.done += rows
        if self._bar is not None:
            self._bar.update(rows)
        elif time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            log.info("%s", self.line())

    def line(self) -> str:
        """``backfill (run 3): 50,000 of 1,000,000 rows, 9,000 rows/s, 105 s left``."""
        rate = (self.done - self._first) / max(time.monotonic() - self._started, 1e-3)
        left = f"{(self.total - self.done) / rate:,.0f} s left" if rate else "waiting"
        return f"{self.title}: {self.done:,} of {self.total:,} rows, {rate:,.0f} rows/s, {left}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            log.info("%s", self.line())
