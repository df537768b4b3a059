"""``index.html`` of a reports folder: every run, newest first, and what changed since the last."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

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


def _newest_first(files: Any, name: Any) -> list[dict[str, Any]]:
    found = []
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            run = json.loads(file.read_text("utf-8"))
            if isinstance(run, dict) and {"report", "started_at"} <= set(run):
                found.append({**run, "folder": name(file)})
    return sorted(found, key=lambda run: (run["started_at"], run["folder"]), reverse=True)


def write(output: Path) -> None:
    """Write the index anew, in one step; the caller holds the folder's lock."""
    runs = complete(output)
    rows = [
        (run["started_at"], _row(run, _before(run, runs[i + 1 :]))) for i, run in enumerate(runs)
    ]
    rows += [(run["started_at"], _failed_row(output, run)) for run in failed(output)]
    body = "".join(row for _, row in sorted(rows, key=lambda row: row[0], reverse=True))
    style = (Path(__file__).parent / "templates" / "queue_insights" / "page.css").read_text("utf-8")
    write_text(output / "index.html", _PAGE.format(style=style, rows=body))


def write_text(file: Path, text: str) -> None:
    """Write a whole file, or leave what was there."""
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def umask() -> int:
    """The process' umask: temporary files and folders are made private, runs are not."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _before(run: dict[str, Any], older: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the run before of the same report on the same queue."""

    def queue(summary: dict[str, Any]) -> tuple[Any, ...]:
        pipeline = summary.get("pipeline") or {}
        return summary["report"], summary.get("database"), pipeline.get("name")

    same = (other for other in older if queue(other) == queue(run))
    return dict(next(same, {}).get("figures", {}))


def _row(run: dict[str, Any], before: dict[str, Any]) -> str:
    breached = run.get("breached", [])
    status = f"<strong class=alarm>{len(breached)} breached</strong>" if breached else "ok"
    figures = "".join(_figures(run.get("figures", {}), before))
    link = f"{quote(run['folder'])}/{PAGE}"
    return _cells(
        f'<a href="{link}">{escape(run.get("title") or run["report"])}</a>',
        _when(run.get("as_of") or run["started_at"]),
        status,
        escape(run.get("verdict") or "-"),
        f"<dl class=changes>{figures}</dl>" if figures else "-",
        escape(run.get("database") or "-"),
    )


def _failed_row(output: Path, run: dict[str, Any]) -> str:
    notebook = Path(run["folder"]).with_suffix(".ipynb")
    name = escape(run["report"])
    if (output / notebook).exists():
        name = f'<a href="{quote(str(notebook))}">{name}</a>'
    error = escape(str(run.get("error", "-")))
    when = _when(run["started_at"])
    return _cells(name, when, "<strong class=alarm>failed</strong>", error, "-", "-")


def _when(time: str) -> str:
    with contextlib.suppress(ValueError):
        return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M} UTC"
    return escape(time)


def _cells(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def _figures(figures: dict[str, Any], before: dict[str, Any]) -> Iterator[str]:
    for name, value in figures.items():
        text = show.cell(name, value)
        old = before.get(name)
        if _is_number(value) and _is_number(old) and value != old:
            change = show.cell(name, value - old)
            text += f" ({change if value < old else '+' + change})"
        yield f"<div><dt>{escape(show.label(name))}</dt> <dd>{escape(text)}</dd></div>"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Queue reports</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<h1>Queue reports</h1>
<p>Newest first; in brackets, the change since the run before on the same queue.</p>
<div class="scroll"><table class="runs">
<thead><tr><th scope="col">Report</th><th scope="col">As of</th><th scope="col">Status</th>
<th scope="col">Verdict</th><th scope="col">Figures</th><th scope="col">Database</th></tr></thead>
<tbody>
{rows}</tbody>
</table></div>
</main>
</body>
</html>
"""
