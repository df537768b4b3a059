"""How far a run is: a bar where somebody watches, plain lines where nobody does."""

import logging
import os
import sys
import time
from collections.abc import Mapping
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
        # Not tqdm.auto: it warns, into the notebook, where ipywidgets is not installed.
        from tqdm import tqdm

        settled = ("rows_undone", "rows_kept") if run["undoing"] else ("rows_done", "rows_dropped")
        self.total = run["rows_done" if run["undoing"] else "rows_planned"]
        self.done = self.first = sum(run[name] for name in settled)
        self.title = f"{'undo' if run['undoing'] else run['action']} (run {run['run']})"
        self.started = self.said = time.monotonic()
        shown: dict[str, Any] = {
            "desc": self.title,
            "unit": "row",
            "unit_scale": True,
            "disable": not watched(),
        }
        self.bar = tqdm(total=self.total, initial=self.done, **shown)

    def advance(self, rows: int) -> None:
        """Count *rows* more as settled."""
        self.done += rows
        self.bar.update(rows)
        if time.monotonic() - self.said > EVERY:
            self.say()

    def say(self) -> None:
        """``backfill (run 3): 50,000 of 1,000,000 rows, 9,000 rows/s, 105 s left``."""
        self.said = time.monotonic()
        rate = (self.done - self.first) / max(self.said - self.started, 1e-3)
        left = f"{(self.total - self.done) / rate:,.0f} s left" if rate else "waiting"
        if self.bar.disable:
            counts = f"{self.done:,} of {self.total:,} rows, {rate:,.0f} rows/s"
            log.info("%s", f"{self.title}: {counts}, {left}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        self.say()
