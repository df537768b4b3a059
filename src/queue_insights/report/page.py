"""A report's page: one HTML file that needs nothing else and asks nobody for anything."""

import secrets
from base64 import b64encode
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from queue_insights import formats
from queue_insights.report import thresholds

_TEMPLATES = Path(__file__).with_name("templates")
_SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]


def take_title(notebook: Any, name: str) -> str:
    """The heading that the notebook begins with, and then has no more, or else its *name*."""
    first: Any = notebook.cells[0] if notebook.cells else {}
    if first.get("cell_type") == "markdown" and first.source.startswith("# "):
        title, _, first.source = first.source[2:].partition("\n")
        return str(title.strip())
    return name.replace("_", " ")


def render(notebook: Any, summary: dict[str, Any]) -> str:
    """HTML of an executed notebook, without its code, under a header made from *summary*."""
    from nbconvert.exporters.html import HTMLExporter
    from plotly.offline import get_plotlyjs
    from traitlets.config import Config

    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name=_TEMPLATES.name,
        extra_template_basedirs=[str(_TEMPLATES.parent)],
        filters={"label": formats.label, "cell": formats.cell, "describe": thresholds.describe},
        config=Config({"NbConvertBase": {"display_data_priority": _SHOWN}}),
        **dict.fromkeys(("exclude_input", "exclude_output_prompt", "exclude_anchor_links"), True),
    )
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    script = (_TEMPLATES / "page.js").read_text("utf-8")
    mark = secrets.token_hex(16)
    resources = {
        "hashes": [b64encode(sha256(text.encode()).digest()) for text in (plotly, script)],
        **{"plotly": mark, "script": script, "run": summary},
        "version": metadata.version("queue-insights"),
    }
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    # Only after nbconvert, which parses the page: plotly.js alone is ten times all the rest.
    return str(body.replace(mark, plotly))
