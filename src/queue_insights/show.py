"""What a notebook shows: in JupyterLab as it stands, on a report's page, and as data.

Each function displays its argument at once. The output carries HTML for people and, as
``application/vnd.queue-insights+json``, the same as data: ``queue-insights report`` reads those
into the page's header, ``summary.json`` and ``tables/*.csv``. Text is escaped wherever it goes.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from queue_insights import formats, summary
from queue_insights.buckets import time_zone
from queue_insights.database import Moment
from queue_insights.errors import InputError, QueueInsightsError
from queue_insights.queue import Queue

MIME = "application/vnd.queue-insights+json"
PLOTLY = "application/vnd.plotly.v1+json"
TABLES = "QUEUE_INSIGHTS_TABLES"  # while a report is made: the folder of its tables

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,62}")


def heading(queue: Queue, moment: Moment, timezone: str = "UTC") -> None:
    """Which database and pipeline this is about, and as of when, in UTC and in *timezone*; the
    *moment* is that of ``with queue.snapshot() as moment``. A standby's lag is a warning."""
    as_of = moment.as_of.astimezone(UTC)
    times = f"{as_of:%Y-%m-%d %H:%M} UTC"
    if timezone != "UTC":
        local = as_of.astimezone(time_zone(timezone, "timezone"))
        times += f" ({local:%Y-%m-%d %H:%M} {timezone})"
    data: dict[str, Any] = {
        "database": queue.database.name,
        "pipeline": {"name": queue.pipeline.name, "fingerprint": queue.pipeline.fingerprint},
        **{"variant": queue.schema.variant, "as_of": formats.iso(as_of), "times": times},
    }
    text = f"Queue {queue.pipeline.name} in {queue.database.name}, as of {times}"
    if moment.replay_lag_seconds is not None:
        behind = f"a standby that is {formats.duration(moment.replay_lag_seconds)} behind"
        data["warnings"] = [f"Read from {behind}."]
        text += f", from {behind}"
    _display("heading", data, text, f"<p>{escape(text)}</p>")


def verdict(
    backlog: pd.DataFrame,
    audit: pd.DataFrame,
    end: pd.DataFrame | None = None,
    timezone: str = "UTC",
) -> None:
    """The one sentence that matters: ``summary.sentence`` of ``Queue.backlog()`` and so on."""
    text = summary.sentence(backlog, audit, end, timezone)
    _display("verdict", {"text": text}, text, f"<p><strong>{escape(text)}</strong></p>")


def figures(values: Mapping[str, summary.Figure]) -> None:
    """Key figures, by name; one that ends in ``_seconds`` is a duration, None is unknown. A page
    shows them as tiles, but for ``summary.DETAILS``.

    Raises InputError for a name that is not lower-case letters, digits and underscores.
    """
    data = {_checked(name): formats.plain(value) for name, value in values.items()}
    called = {name: summary.TILES.get(name, formats.label(name)) for name in data}
    lines = [(called[name], formats.cell(name, value)) for name, value in data.items()]
    text = "\n".join(f"{figure}: {value}" for figure, value in lines)
    html = formats.to_html(pd.DataFrame(lines, columns=["figure", "value"]))
    # A notebook's file sorts keys; the names keep the order.
    shown = [name for name in data if name not in summary.DETAILS]
    tiles = [(name, called[name]) for name in shown]
    _display("figures", {"figures": data, "names": list(data), "tiles": tiles}, text, html)


def next_steps(steps: Sequence[tuple[str, str]]) -> None:
    """What to do next: pairs of a reason and a command, as ``summary.next_steps`` gives them."""
    text = "\n".join(f"{why}: {command}" for why, command in steps) or "Nothing needs to be done."
    html = "".join(f"<li>{escape(w)}: <code>{escape(c)}</code></li>" for w, c in steps)
    data = {"steps": [{"why": why, "command": command} for why, command in steps]}
    _display("next", data, text, f"<ul>{html}</ul>" if html else f"<p>{text}</p>")


def table(name: str, frame: pd.DataFrame, caption: str = "", timezone: str = "UTC") -> None:
    """A frame as a table, and as ``tables/NAME.csv`` of a report, which has everything, in UTC and
    seconds. Here times are in *timezone*, and columns without any value are left out. What
    ``save`` has cut says so: ``the first 100 of 10,000``.

    Raises InputError for a name that is not lower-case letters, digits and underscores, and for an
    unknown time zone.
    """
    zone = time_zone(timezone, "timezone")
    rows = [list(record.values()) for record in formats.records(frame)]
    data: dict[str, Any] = {"name": _checked(name), "columns": [str(c) for c in frame]}
    if (of := frame.attrs.get("of", 0)) > len(frame):
        data["of"] = of
        caption = f"{caption}{': ' if caption else ''}the first {len(frame):,} of {of:,}"
    data["rows"] = rows
    data |= {"caption": caption, "timezone": timezone}
    _display("table", data, formats.to_table(frame), formats.to_html(frame, caption, zone))


def save(name: str, pages: Iterable[pd.DataFrame], limit: int) -> pd.DataFrame:
    """Save a list, however long, as ``tables/NAME.csv`` of the report that is being made (elsewhere
    nothing is written). Returns its first *limit* rows, for ``table``; their ``attrs["of"]`` is how
    many there are. *pages* is what ``Queue.pages`` gives.

    Raises InputError for a bad name or limit, QueueInsightsError if the file cannot be written.

    >>> with queue.snapshot():
    ...     missing = show.save("missing", queue.pages("missing"), limit=100)
    >>> show.table("missing", missing, "Waiting without a task row")
    """
    if type(limit) is not int or limit < 0:
        raise InputError(f"limit: found {limit!r}, expected a number from zero")
    file, of = f"{_checked(name)}.csv", 0
    first: list[pd.DataFrame] = []
    if folder := os.environ.get(TABLES):
        pages = _written(pages, Path(folder, file))
    for page in pages:
        if not first or of < limit:
            first.append(page.head(limit - of))
        of += len(page)
    shown = pd.concat(first, ignore_index=True)
    shown.attrs["of"] = of
    return shown


def _written(pages: Iterable[pd.DataFrame], file: Path) -> Iterator[pd.DataFrame]:
    """The *pages*, each written to the *file* as it passes; all of them, or there is no file."""
    try:
        with file.open("w", encoding="utf-8", newline="") as open_file:
            for number, page in enumerate(pages):
                open_file.write(formats.to_csv(page, header=number == 0))
                yield page
    except BaseException as error:
        file.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        problem = f"tables/{file.name}: cannot be written: {error.strerror}"
        raise QueueInsightsError(problem) from None


@dataclass
class Rows:
    """What ``rows`` has shown. ``ids`` are those of the rows selected by now, none where nothing
    was selected; None where nobody can select."""

    shown: Any = None

    @property
    def ids(self) -> list[str] | None:
        if self.shown is None:
            return None
        return [str(self.shown.df.iloc[i, 0]) for i in self.shown.selected_rows]

    def _ipython_display_(self) -> None:
        """Nothing: it is shown already, also where it is a cell's last value."""


def rows(name: str, frame: pd.DataFrame, caption: str = "", timezone: str = "UTC") -> Rows:
    """A list of tracks, its first column their ids: as ``table`` shows it, and in JupyterLab to
    sort, search, filter, export and select in (by itables, which loads nothing from elsewhere).

    >>> picked = show.rows("stuck", queue.tasks(state="stuck"))
    >>> plan = queue.plan_reset(ids=picked.ids)  # in the next cell
    """
    if "JPY_SESSION_NAME" not in os.environ:  # nobody is there: papermill, a report
        table(name, frame, caption, timezone)
        return Rows()
    from IPython.display import display
    from itables.widget import ITable

    zone, shown = time_zone(timezone, "timezone"), {}
    for column, values in frame.dropna(axis="columns", how="all").items():
        is_number = pd.api.types.is_numeric_dtype(values)  # sorts as such
        where = f" ({zone})" if isinstance(values.dtype, pd.DatetimeTZDtype) else ""
        texts = [formats.cell(str(column), v, zone) for v in values.astype(object)]
        shown[formats.label(str(column)) + where] = (
            values.astype(object).where(values.notna(), "") if is_number else texts
        )
    options: Any = {"select": True, "showIndex": False, "maxBytes": 0, "column_filters": "header"}
    options |= {"layout": {"topStart": "buttons", "topEnd": "search"}, "scrollX": True}
    options |= {"buttons": ["selectAll", "selectNone", "csvHtml5", "excelHtml5"]}
    found = ITable(pd.DataFrame(shown, columns=list(shown)), caption, **options)
    display(found)  # type: ignore[no-untyped-call]
    return Rows(found)


def chart(figure: Any, description: str) -> None:
    """A plotly figure; *description* says what it is about. Where there is no plotly, it is bars of
    table cells; a figure of ``charts`` that has nothing to draw is a sentence instead."""
    from queue_insights.charts import legend, rows

    if not figure.data:
        why = figure.layout.meta or "Nothing to show."
        return _display("note", {}, why, f"<p>{escape(why)}</p>")
    lines, keys = rows(figure), legend(figure)
    words = "; ".join(f"{row.label}: {', '.join(row.words)}" for row in lines)
    html = formats.TEMPLATES.get_template("chart.html.j2").render(rows=lines, keys=keys)
    # If plotly displayed it, its renderer might embed 5 MB of JavaScript each time.
    drawing = json.loads(figure.to_json())
    drawing["config"] = {"displayModeBar": False, "responsive": True}  # it would cover the legend
    data = {"description": description, "words": words, "keys": keys}
    _display("chart", data, f"{description}\n{words}", html, {PLOTLY: drawing})
    _display("caption", {}, description, f"<p class=said>{escape(description)}</p>")
    return None


def _checked(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    expected = "expected lower-case letters, digits and underscores, such as by_stage"
    raise InputError(f"name {name!r}: {expected}")


def _display(
    kind: str, data: dict[str, Any], text: str, html: str, more: Mapping[str, Any] | None = None
) -> None:
    from IPython.display import display

    bundle = {"text/html": html, MIME: {"kind": kind, **data}, "text/plain": text, **(more or {})}
    display(bundle, raw=True)  # type: ignore[no-untyped-call]
