"""Reports: a notebook run by papermill, made into a page, a summary and tables.

The notebook says what matters through ``queue_insights.show``; this reads it from the outputs.
"""

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from queue_insights import index, metrics, page, parameters, resources, runs, show, thresholds
from queue_insights.errors import InputError
from queue_insights.execution import ReportError, execute
from queue_insights.formats import to_csv
from queue_insights.pipeline import nearest, parse_duration

SCHEMA_VERSION = 1
_THRESHOLDS = "thresholds"


@dataclass(frozen=True)
class Run:
    """A complete run: its folder, and what its ``summary.json`` holds."""

    folder: Path
    summary: dict[str, Any]

    @property
    def page(self) -> Path:
        return self.folder / index.PAGE


def run(
    name: str,
    file: str | None = None,
    given: Iterable[tuple[str, str]] = (),
    output: str | Path = "reports",
    pipeline: str | None = None,
    keep: str | None = None,
    metrics_file: str | Path | None = None,
    progress: bool = False,
) -> Run:
    """Execute the notebook *name* (a shipped one's name, or a path) into a run folder.

    *file*: parameters as YAML (a path, or a shipped one's name); *given*: (name, text) pairs that
    go over them; *pipeline*: short for the parameter of that name; *keep*: remove older runs, all
    but so many (``30``) or by age (``30d``); *metrics_file*: also write the figures for Prometheus;
    *progress*: a bar on stderr. The parameter ``thresholds`` is for the report itself.

    Raises InputError before anything runs for parameters that the notebook does not take, and
    ReportError if it fails: its notebook is kept in ``failed/`` below *output*. Raises Stopped on
    SIGTERM and Ctrl-C, which leave nothing.
    """
    started_at = datetime.now(UTC)
    notebook, source = _notebook(name)
    report = re.sub(r"[^\w-]+", "_", source.stem).strip("_") or "report"
    known = parameters.declared(notebook, source.stem)
    accepted = known | {_THRESHOLDS: parameters.Parameter(_THRESHOLDS, "list[str]", [], list[str])}
    of_file = {} if file is None else parameters.of_file(file)
    if pipeline is not None:
        given = [*given, ("pipeline", pipeline)]
    values = {name: parameter.default for name, parameter in accepted.items()}
    values |= parameters.validated(accepted, of_file, given, source.stem, f"-f {file}")
    limits = [thresholds.parse(text) for text in values[_THRESHOLDS]]
    kept = None if keep is None else _keep(keep)
    if metrics_file is not None:
        metrics.check(Path(metrics_file))
    output = Path(output)
    with runs.workspace(output) as folder:
        working = folder / f"{report}.ipynb"
        try:
            taken = {key: value for key, value in values.items() if key in known}
            executed = execute(notebook, source.stem, working, taken, progress)
            outputs = [found for cell in executed.cells for found in cell.get("outputs", [])]
            shown = [
                found.data[show.MIME] for found in outputs if show.MIME in found.get("data", {})
            ]
            summary = _summary(executed, source, report, values, started_at, shown)
            tables = [data for data in shown if data["kind"] == "table"]
            summary["breached"] = thresholds.breaches(limits, summary["figures"], tables)
            _write(folder, executed, summary, tables)
            final = runs.publish(folder, output, report, started_at)
        except OSError as error:
            why = error.strerror or error
            raise ReportError(f"--output {output}: cannot be written: {why}") from error
        except (ReportError, InputError) as error:
            failed = None
            with contextlib.suppress(OSError):  # a full disk, say: what failed is said all the same
                failed = runs.keep_failed(working, output, report, started_at, str(error))
            if failed is None:
                raise
            raise type(error)(f"{error}; its notebook is {failed}") from error
    if metrics_file is not None:
        metrics.write(Path(metrics_file), summary, tables)
    if kept is not None:
        runs.prune(output, report, kept)
    return Run(final, summary)


def _notebook(name: str) -> tuple[dict[str, Any], Path]:
    """The notebook as JSON, and its file: nbformat, which takes seconds to import, is for later."""
    path = Path(name)
    if not path.suffix and path.name == name:
        shipped = resources.folder("notebooks")
        path = shipped / f"{name}.ipynb"
        if not path.is_file():
            names = sorted(file.stem for file in shipped.glob("*.ipynb"))
            raise InputError(
                f"unknown report {name!r}: shipped are {', '.join(names)}; a notebook is named by "
                f"its path, such as ./{name}.ipynb{nearest(name, names)}"
            )
    try:
        notebook = json.loads(path.read_text("utf-8"))
        if notebook["nbformat"] == 4 and isinstance(notebook["cells"], list):
            return notebook, path
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{name}: not a notebook (of format 4)")


def _keep(text: str) -> int | timedelta:
    if re.fullmatch(r"[1-9]\d{0,6}", text):
        return int(text)
    try:
        return parse_duration(text)
    except ValueError:
        raise InputError(
            f"--keep: found {text!r}, expected a number of runs, or an age such as 30d"
        ) from None


def _summary(
    executed: Any,
    source: Path,
    report: str,
    values: dict[str, Any],
    started_at: datetime,
    shown: list[dict[str, Any]],
) -> dict[str, Any]:
    """What the notebook showed, as one JSON-ready mapping: docs/summary.md describes it."""
    heading = next((data for data in shown if data["kind"] == "heading"), {})
    figures = [data["figures"] for data in shown if data["kind"] == "figures"]
    return {
        "schema_version": SCHEMA_VERSION,
        "report": report,
        "title": page.take_title(executed, source.stem),
        "started_at": show.iso(started_at),
        "finished_at": show.iso(datetime.now(UTC)),
        **{key: heading.get(key) for key in ("database", "pipeline", "variant", "as_of", "times")},
        "parameters": {name: value for name, value in values.items() if name != _THRESHOLDS},
        "verdict": next((data["text"] for data in shown if data["kind"] == "verdict"), None),
        "figures": {name: value for found in figures for name, value in found.items()},
        "tables": [data["name"] for data in shown if data["kind"] == "table"],
        "thresholds": values[_THRESHOLDS],
        "breached": [],
        "warnings": [warning for data in shown for warning in data.get("warnings", [])],
    }


def _write(
    folder: Path, executed: Any, summary: dict[str, Any], tables: list[dict[str, Any]]
) -> None:
    (folder / "tables").mkdir()
    for table in tables:
        frame = pd.DataFrame(table["rows"], columns=table["columns"], dtype=object)
        (folder / "tables" / f"{table['name']}.csv").write_text(to_csv(frame), "utf-8")
    (folder / index.PAGE).write_text(page.render(executed, summary), "utf-8")
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    (folder / index.SUMMARY).write_text(text + "\n", "utf-8")
