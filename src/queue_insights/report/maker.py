"""Makes a report: runs a notebook and writes its page, summary and tables into a folder.

The notebook says what matters through ``queue_insights.show``; this reads it from the outputs.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from queue_insights import formats, show
from queue_insights.errors import InputError
from queue_insights.pipeline import nearest, shipped
from queue_insights.report import execution, folders, metrics, page, parameters, thresholds

_THRESHOLDS = parameters.Parameter("thresholds", "list[str]", list[str], [])


@dataclass(frozen=True)
class Report:
    """A finished report: its folder, and what its ``summary.json`` holds."""

    folder: Path
    summary: dict[str, Any]

    @property
    def page(self) -> Path:
        return self.folder / folders.PAGE


def make(
    name: str,
    file: str | None = None,
    given: Iterable[tuple[str, str]] = (),
    output: str | Path = "reports",
    pipeline: str | None = None,
    keep: str | None = None,
    metrics_file: str | Path | None = None,
    progress: bool = False,
) -> Report:
    """Run the notebook *name* (a shipped one's name, or a path) into a new folder below *output*.

    *file*: parameters as YAML (a path, or a shipped one's name); *given*: (name, text) pairs that
    go over them; *pipeline*: short for the parameter of that name; *keep*: remove older folders of
    this report, all but so many (``30``) or by age (``30d``); *metrics_file*: also write the
    figures for Prometheus; *progress*: a bar on stderr. The parameter ``thresholds`` is for the
    report itself, whether the notebook has it or not.

    Raises InputError before anything runs for parameters that the notebook does not take, and
    ReportError if it fails: its notebook is kept in ``failed/`` below *output*. Raises Stopped on
    SIGTERM and Ctrl-C, which leave nothing.
    """
    started_at, output = datetime.now(UTC), Path(output)
    notebook, source = _find(name)
    known = parameters.declared(notebook, source.stem)
    values = _values(known, file, given, pipeline, source.stem)
    limits = [thresholds.parse(text) for text in values["thresholds"]]
    to_keep = None if keep is None else folders.parse_keep(keep)
    if metrics_file is not None:
        metrics.check(Path(metrics_file))
    report = re.sub(r"[^\w-]+", "_", source.stem).strip("_") or "report"
    with folders.new(output, report, started_at) as (folder, final):
        working, taken = folder / f"{report}.ipynb", {name: values[name] for name in known}
        executed = execution.execute(notebook, source.stem, working, taken, progress)
        title = page.take_title(executed, source.stem)
        summary, tables = _summary(executed, report, title, started_at, values)
        summary["breached"] = thresholds.breaches(limits, summary["figures"], tables)
        _write(folder, executed, summary, tables)
    if metrics_file is not None:
        metrics.write(Path(metrics_file), summary, tables)
    if to_keep is not None:
        folders.prune(output, report, to_keep)
    return Report(final, summary)


def _find(name: str) -> tuple[dict[str, Any], Path]:
    """The notebook as JSON, and its file: nbformat, which takes seconds to import, is for later."""
    path = Path(name)
    if not path.suffix and path.name == name:
        path = shipped("notebooks") / f"{name}.ipynb"
        if not path.is_file():
            names = sorted(file.stem for file in path.parent.glob("*.ipynb"))
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


def _values(
    known: dict[str, parameters.Parameter],
    file: str | None,
    given: Iterable[tuple[str, str]],
    pipeline: str | None,
    report: str,
) -> dict[str, Any]:
    """The value of every parameter, and of ``thresholds``, which every report takes."""
    accepted = known | {"thresholds": known.get("thresholds", _THRESHOLDS)}
    values = {name: parameter.default for name, parameter in accepted.items()}
    from_file = {} if file is None else parameters.of_file(file)
    texts = [*given, *([] if pipeline is None else [("pipeline", pipeline)])]
    values |= parameters.validated(accepted, from_file, texts, report, f"-f {file}")
    _THRESHOLDS.check(values["thresholds"], f"notebook {report!r}")
    return values


def _summary(
    executed: Any, report: str, title: str, started_at: datetime, values: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the notebook gave to ``queue_insights.show``: all of it as one JSON-ready mapping, which
    docs/summary.md describes, and its tables."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    shown = [output.data[show.MIME] for output in outputs if show.MIME in output.get("data", {})]
    first = {data["kind"]: data for data in reversed(shown)}  # of each kind
    heading, verdict = first.get("heading", {}), first.get("verdict", {})
    figures = [data["figures"] for data in shown if data["kind"] == "figures"]
    tables = [data for data in shown if data["kind"] == "table"]
    return {
        "schema_version": 1,
        "report": report,
        "title": title,
        "started_at": formats.iso(started_at),
        "finished_at": formats.iso(datetime.now(UTC)),
        **{key: heading.get(key) for key in ("database", "pipeline", "variant", "as_of", "times")},
        "parameters": {name: value for name, value in values.items() if name != "thresholds"},
        "verdict": verdict.get("text"),
        "figures": {name: value for found in figures for name, value in found.items()},
        "tables": [table["name"] for table in tables],
        "thresholds": values["thresholds"],
        "breached": [],
        "warnings": [warning for data in shown for warning in data.get("warnings", [])],
    }, tables


def _write(
    folder: Path, executed: Any, summary: dict[str, Any], tables: list[dict[str, Any]]
) -> None:
    (folder / "tables").mkdir()
    for table in tables:
        frame = pd.DataFrame(table["rows"], columns=table["columns"], dtype=object)
        (folder / "tables" / f"{table['name']}.csv").write_text(formats.to_csv(frame), "utf-8")
    (folder / folders.PAGE).write_text(page.render(executed, summary), "utf-8")
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    (folder / folders.SUMMARY).write_text(text + "\n", "utf-8")
