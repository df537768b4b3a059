"""Makes a report: runs a notebook and writes its page, summary, tables and metrics.

The notebook says what matters through ``queue_insights.show``; this reads it from the outputs.
"""

import json
import re
import secrets
from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from queue_insights import formats, show
from queue_insights.errors import InputError
from queue_insights.pipeline import nearest, read_yaml, shipped
from queue_insights.report import changes, execution, folders, mail, parameters, thresholds

_TEMPLATES = Path(formats.__file__).with_name("templates")
_SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
_THRESHOLDS = parameters.Parameter("thresholds", "list[str]", [])


def make(
    name: str,
    file: str | None = None,
    given: Iterable[tuple[str, str]] = (),
    output: str | Path = "reports",
    pipeline: str | None = None,
    keep: str | None = None,
    metrics_file: str | Path | None = None,
    progress: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Run the notebook *name* (a shipped one's name, or a path) into a new folder below *output*;
    returns the path of its page, and what its ``summary.json`` holds.

    *file*: parameters as YAML (a path, or a shipped one's name); *given*: (name, text) pairs over
    them; *pipeline*: the parameter of that name; *keep*: remove this report's older folders, all
    but so many (``30``) or by age (``30d``); *metrics_file*: for Prometheus; *progress*: a bar.

    Raises InputError before anything runs for what cannot be, ReportError if the notebook fails
    (``failed/`` keeps it), and Stopped on SIGTERM and Ctrl-C, which leave nothing.
    """
    if re.match(r"[a-z][a-z0-9+.-]*:/", str(output)):
        raise InputError(f"--output {output}: expected a folder of this machine, not a URL")
    notebook, source = _find(name)
    known = parameters.declared(notebook, source.stem)
    texts = [*given] if pipeline is None else [*given, ("pipeline", pipeline)]
    values = _values(known, file, texts, source.stem)
    limits = [thresholds.parse(text) for text in values["thresholds"]]
    to_keep = None if keep is None else folders.parse_keep(keep)
    if metrics_file is not None:
        check_metrics(Path(metrics_file))
    report = re.sub(r"[^\w-]+", "_", source.stem).strip("_") or "report"
    start = {"report": report, "started_at": formats.iso(datetime.now(UTC))}
    with folders.unfinished(Path(output), start) as folder:
        working, taken = folder / f"{report}.ipynb", {name: values[name] for name in known}
        executed = execution.execute(notebook, source.stem, working, taken, progress)
        start["title"] = _take_title(executed, source.stem)
        summary, tables = _summary(executed, start, values)
        changes.compare(summary, tables, folders.listed(Path(output)))
        summary["breached"] = thresholds.breaches(limits, summary["figures"], tables)
        (folder / folders.PAGE).write_text(_page(executed, summary), "utf-8")
        saved = [*(folder / "tables").iterdir()]  # by show.save, all of their rows
        for table in tables:
            frame = pd.DataFrame(table["rows"], columns=table["columns"], dtype=object)
            csv = folder / "tables" / f"{table['name']}.csv"
            if csv not in saved:
                csv.write_text(formats.to_csv(frame), "utf-8")
        mail.write(folder, summary, tables)
        final = folders.publish(folder, summary)
    if metrics_file is not None:
        write_metrics(Path(metrics_file), summary)
    if to_keep is not None:
        folders.prune(Path(output), report, to_keep)
    return final / folders.PAGE, summary


def _find(name: str) -> tuple[dict[str, Any], Path]:
    """The notebook as JSON, and its file: nbformat, which takes seconds to import, is for later."""
    path = Path(name)
    if path.name == name and not path.suffix:
        path = shipped("notebooks") / f"{name}.ipynb"
    try:
        notebook = json.loads(path.read_text("utf-8"))
    except OSError as error:
        names = sorted(file.stem for file in shipped("notebooks").glob("*.ipynb"))
        hint = f"shipped are {', '.join(names)}{nearest(name, names)}"
        why = f"{path} cannot be read: {error.strerror}"
        raise InputError(f"unknown report {name!r}: {hint}; {why}") from None
    except ValueError:
        notebook = None
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4:
        raise InputError(f"{name}: not a notebook (of format 4)")
    return notebook, path


def _values(
    known: dict[str, parameters.Parameter], file: str | None, given: list[Any], report: str
) -> dict[str, Any]:
    """The value of every parameter, and of ``thresholds``, which every report takes; *file* is a
    path, or a shipped one's bare name."""
    accepted = known | {"thresholds": known.get("thresholds", _THRESHOLDS)}
    values = {name: parameter.default for name, parameter in accepted.items()}
    from_file = {}
    if file is not None:
        path = Path(file)
        if not path.is_file() and file == path.stem:
            path = shipped("params") / f"{file}.yaml"
        from_file = read_yaml(path)
    values |= parameters.validated(accepted, from_file, given, report, f"-f {file}")
    _THRESHOLDS.check(values["thresholds"], f"notebook {report!r}")
    return values


def _summary(
    executed: Any, start: dict[str, Any], values: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the notebook gave to ``queue_insights.show``: all of it as one JSON-ready mapping, which
    docs/summary.md describes, and its tables."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    shown = []
    for output in outputs:
        if show.MIME in output.get("data", {}):
            shown.append(output.data[show.MIME] | {"output": output.data})
    first = {data["kind"]: data for data in reversed(shown)}  # of each kind
    tables = [data for data in shown if data["kind"] == "table"]
    heading = first.get("heading", {})
    summary = {
        "schema_version": 1,
        **start,
        "finished_at": formats.iso(datetime.now(UTC)),
        **{k: heading.get(k) for k in ("database", "pipeline", "variant", "as_of", "times")},
        "parameters": {name: value for name, value in values.items() if name != "thresholds"},
        "verdict": first.get("verdict", {}).get("text"),
        "figures": {k: data["figures"][k] for data in shown for k in data.get("names", [])},
        "tiles": [tile for data in shown for tile in data.get("tiles", [])],
        "next": first.get("next", {}).get("steps", []),
        "tables": [table["name"] for table in tables],
        "thresholds": values["thresholds"],
        "breached": [],
        "warnings": [warning for data in shown for warning in data.get("warnings", [])],
    }
    return summary, tables


def _take_title(notebook: Any, name: str) -> str:
    """The heading that the notebook begins with, and then has no more, or else its *name*."""
    first: Any = notebook.cells[0] if notebook.cells else {}
    if first.get("cell_type") == "markdown" and first.source.startswith("# "):
        title, _, first.source = first.source[2:].partition("\n")
        return str(title.strip())
    return name.replace("_", " ")


def _page(notebook: Any, summary: dict[str, Any]) -> str:
    """HTML of an executed notebook, without its code, under a header made from *summary*: one file
    that needs nothing else and asks nobody for anything."""
    from nbconvert.exporters.html import HTMLExporter
    from plotly.offline import get_plotlyjs
    from traitlets.config import Config

    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name=_TEMPLATES.name,
        extra_template_basedirs=[str(_TEMPLATES.parent)],
        filters={"cell": formats.cell, "change": formats.change, "describe": thresholds.describe},
        config=Config({"NbConvertBase": {"display_data_priority": _SHOWN}}),
        **dict.fromkeys(("exclude_input", "exclude_output_prompt", "exclude_anchor_links"), True),
    )
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    script = (_TEMPLATES / "page.js").read_text("utf-8")
    mark = secrets.token_hex(16)
    hashes = [b64encode(sha256(text.encode()).digest()) for text in (plotly, script)]
    resources = {"hashes": hashes, "plotly": mark, "script": script, "run": summary}
    resources["version"] = version("queue-insights")
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    # Only after nbconvert, which parses the page: plotly.js alone is ten times all the rest.
    return str(body.replace(mark, plotly))


def check_metrics(file: Path) -> None:
    """Raises InputError where metrics could not be written, before a report runs for minutes."""
    if find_spec("prometheus_client") is None:
        raise InputError("--metrics needs prometheus-client: pip install 'queue-insights[metrics]'")
    # What is no file, such as a pipe or a device, would be replaced by one.
    if not file.parent.is_dir() or (file.exists() and not file.is_file()):
        raise InputError(f"--metrics {file}: expected a file in a folder that exists")


def write_metrics(file: Path, summary: dict[str, Any]) -> None:
    """Write Prometheus gauges, labelled with report, pipeline and database, to *file* in one step:
    each key figure that is a number, how many thresholds are breached, and ``as_of`` and
    ``finished`` as Unix times. Raises ReportError."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    values = {**summary["figures"], "thresholds_breached": len(summary["breached"])}
    for name, time in {"as_of": summary["as_of"], "finished": summary["finished_at"]}.items():
        if time:
            values[f"{name}_timestamp_seconds"] = datetime.fromisoformat(time).timestamp()
    labels = {"report": summary["report"], "database": summary["database"] or ""}
    labels["pipeline"] = (summary["pipeline"] or {}).get("name", "")
    registry = CollectorRegistry()
    for name, value in values.items():
        if type(value) in (int, float):
            gauge = Gauge(f"queue_insights_{name}", name, labels, registry=registry)
            gauge.labels(**labels).set(value)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        raise execution.ReportError(
            f"--metrics {file}: cannot be written: {error.strerror}"
        ) from None
