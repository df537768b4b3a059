"""``index.html`` of a reports folder: every run, newest first, and what changed since the last."""

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from queue_insights import show

SUMMARY = "summary.json"
PAGE = "report.html"
FAILED = "failed"


def complete(output: Path) -> list[dict[str, Any]]:
    """The summaries of the runs in *output*, newest first, each with its ``folder``'s name."""
    return _newest_first(output.glob(f"[!.]*/{SUMMARY}"), lambda file: file.parent.name)


def failed(output: Path) -> list[dict[str, Any]]:
    """The notes on failed runs, newest first: report, started_at, error; ``folder`` is the note."""
    return _newest_first(output.glob(f"{FAILED}/[!.]*.json"), lambda file: f"{FAILED}/{file.name}")


def _newest_first(files: Iterable[Path], name: Callable[[Path], str]) -> list[dict[str, Any]]:
    found = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            run = json.loads(file.read_text("utf-8"))
            if isinstance(run, dict) and {"report", "started_at"} <= set(run):
                found.append({**run, "folder": name(file)})
    return sorted(found, key=lambda run: (run["started_at"], run["folder"]), reverse=True)


def write(output: Path) -> None:
    """Write the index anew, in one step; the caller holds the folder's lock."""
    from jinja2 import Environment, PackageLoader

    runs, failures = complete(output), failed(output)
    last: dict[tuple[Any, ...], dict[str, Any]] = {}  # of each report on each queue, its figures
    for run in reversed(runs):
        queue = (run["report"], run.get("database"), (run.get("pipeline") or {}).get("name"))
        run |= {"link": f"{run['folder']}/{PAGE}", "before": last.get(queue, {})}
        last[queue] = run.get("figures", {})
    for run in failures:
        notebook = Path(run["folder"]).with_suffix(".ipynb")
        run["link"] = str(notebook) if (output / notebook).exists() else None
    templates = PackageLoader("queue_insights", "templates/queue_insights")
    template = Environment(loader=templates, autoescape=True).get_template("runs.html.j2")
    rows = sorted([*runs, *failures], key=lambda run: run["started_at"], reverse=True)
    page = template.render(runs=rows, label=show.label, cell=show.cell, change=_change)
    write_text(output / "index.html", page)


def write_text(file: Path, text: str) -> None:
    """Write a whole file, or leave what was there; the caller holds the folder's lock."""
    temporary = file.with_name(f".{file.name}")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _change(name: str, value: Any, old: Any) -> str:
    """`` (+3)``, for two numbers that differ."""
    if not {type(value), type(old)} <= {int, float} or value == old:
        return ""
    return f" ({'+' if value > old else ''}{show.cell(name, value - old)})"
