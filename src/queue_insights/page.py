"""A run's page: one HTML file that needs nothing else and asks nobody for anything."""

import base64
import copy
import hashlib
import json
import re
import secrets
from importlib import metadata, resources
from typing import Any

from queue_insights import show, thresholds

TEMPLATES = resources.files("queue_insights") / "templates"
_PARTS = ("policy", "style", "plotly", "script")
_SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
_TITLE = re.compile(r"\A\s*# +([^\n]+?)[ \t#]*(?:\n|\Z)")


def title(notebook: Any, name: str) -> str:
    """The first heading of the notebook, or its file's name."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (match := _TITLE.search(cell.source)):
            return match[1]
    return name.replace("_", " ")


def render(notebook: Any, summary: dict[str, Any]) -> str:
    """HTML of an executed notebook, without its code, under a header made from *summary*."""
    from nbconvert.exporters.html import HTMLExporter
    from plotly.offline import get_plotlyjs
    from traitlets.config import Config

    marks = {name: f"mark-{secrets.token_hex(16)}" for name in _PARTS}
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="queue_insights",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        filters={"script_json": _script_json},
        config=Config({"NbConvertBase": {"display_data_priority": _SHOWN}}),
    )
    body, _ = exporter.from_notebook_node(
        _without_title(notebook), resources={"marks": marks, "run": _header(summary)}
    )
    folder = TEMPLATES / "queue_insights"
    parts = {
        "style": (folder / "page.css").read_text("utf-8"),
        "plotly": get_plotlyjs().replace("</script", "<\\/script"),
        "script": (folder / "page.js").read_text("utf-8"),
    }
    # Only after nbconvert, which parses the page: plotly.js alone is ten times all the rest.
    for name, text in {"policy": _policy(parts["plotly"], parts["script"]), **parts}.items():
        body = body.replace(marks[name], text)
    return body


def _policy(*scripts: str) -> str:
    """A policy under which only these scripts run, and nothing is requested from anywhere."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )


def _script_json(value: Any) -> str:
    """JSON that no HTML parser takes for the end of its script, or for a comment in it."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _without_title(notebook: Any) -> Any:
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and _TITLE.search(cell.source):
            cell.source = _TITLE.sub("", cell.source, count=1)
            break
    notebook.cells = [c for c in notebook.cells if c.cell_type != "markdown" or c.source.strip()]
    return notebook


def _header(summary: dict[str, Any]) -> dict[str, Any]:
    breached = {breach["figure"] for breach in summary["breached"]}

    def tiles(shown: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"label": show.label(n), "text": show.cell(n, v), "breached": n in breached}
            for n, v in shown["figures"].items()
        ]

    about = {
        "Database": summary["database"],
        "Pipeline": summary["pipeline"] and summary["pipeline"]["name"],
        "As of": summary["times"],
    }
    return {
        "title": summary["title"],
        "as_of": summary["as_of"] or summary["started_at"],
        "about": [(term, value) for term, value in about.items() if value],
        "verdict": summary["verdict"],
        "breached": [thresholds.describe(breach) for breach in summary["breached"]],
        "warnings": summary["warnings"],
        "tiles": tiles,
        "parameters": [(name, repr(value)) for name, value in summary["parameters"].items()],
        "tables": summary["tables"],
        "version": metadata.version("queue-insights"),
    }
