"""A run's page: one HTML file that needs nothing else and asks nobody for anything."""

import re
import secrets
from base64 import b64encode
from hashlib import sha256
from importlib import metadata, resources
from typing import Any

from queue_insights import show, thresholds

TEMPLATES = resources.files("queue_insights") / "templates"
_SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
_TITLE = re.compile(r"\A\s*# +([^\n]+?)[ \t#]*(?:\n|\Z)")


def take_title(notebook: Any, name: str) -> str:
    """The first heading of the notebook, which it then has no more, or its file's name."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (match := _TITLE.search(cell.source)):
            cell.source = cell.source[match.end() :]
            return match[1]
    return name.replace("_", " ")


def render(notebook: Any, summary: dict[str, Any]) -> str:
    """HTML of an executed notebook, without its code, under a header made from *summary*."""
    from nbconvert.exporters.html import HTMLExporter
    from plotly.offline import get_plotlyjs
    from traitlets.config import Config

    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="queue_insights",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        filters={"label": show.label, "describe": thresholds.describe},
        config=Config({"NbConvertBase": {"display_data_priority": _SHOWN}}),
    )
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    script = (TEMPLATES / "queue_insights" / "page.js").read_text("utf-8")
    mark = secrets.token_hex(16)
    given = {
        "hashes": [b64encode(sha256(text.encode()).digest()) for text in (plotly, script)],
        "plotly": mark,
        "script": script,
        "run": summary,
        "cell": show.cell,
        "version": metadata.version("queue-insights"),
    }
    body, _ = exporter.from_notebook_node(notebook, resources=given)
    # Only after nbconvert, which parses the page: plotly.js alone is ten times all the rest.
    return str(body.replace(mark, plotly))
