"""What a notebook shows: in JupyterLab as it stands, in a report's page, and as data.

Each function displays its argument at once. The output carries HTML for people and, as
``application/vnd.queue-insights+json``, the same as data: ``queue-insights report`` reads those
into the page's header, ``summary.json`` and ``tables/*.csv``. Text is escaped wherever it goes.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pandas as pd

from queue_insights import formats, summary
from queue_insights.buckets import time_zone
from queue_insights.errors import InputError

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from queue_insights.database import Moment
    from queue_insights.queue import Queue

MIME = "application/vnd.queue-insights+json"
PLOTLY = "application/vnd.plotly.v1+json"

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,62}")
_WIDEST = 200  # characters of a cell on the page; the CSV has all of them
# JupyterLab aligns every cell to the right.
_STYLE = "<style>.records :is(th, td) {text-align: left} .records .n {text-align: right}</style>"
_LONG = 30  # a column with longer text is wide enough to read, and wraps


def heading(queue: "Queue", moment: "Moment", timezone: str = "UTC") -> None:
    """Which database and pipeline this is about, and as of when (UTC, and in *timezone*).

    >>> with queue.snapshot() as moment:
    ...     backlog, audit = queue.backlog(), queue.audit()
    >>> show.heading(queue, moment, "Europe/Berlin")
    """
    as_of = moment.as_of.astimezone(UTC)
    data: dict[str, Any] = {
        "database": queue.database.name,
        "pipeline": {"name": queue.pipeline.name, "fingerprint": queue.pipeline.fingerprint},
        "variant": queue.schema.variant,
        "as_of": iso(as_of),
        "timezone": timezone,
    }
    times = f"{as_of:%Y-%m-%d %H:%M} UTC"
    if timezone != "UTC":
        local = as_of.astimezone(time_zone(timezone, "timezone"))
        times += f" ({local:%Y-%m-%d %H:%M} {timezone})"
    text = f"Queue {queue.pipeline.name} in {queue.database.name}, as of {times}"
    if moment.replay_lag_seconds is not None:
        lag = formats.duration(moment.replay_lag_seconds)
        data["warnings"] = [f"Read from a standby that is {lag} behind."]
        text += f", from a standby that is {lag} behind"
    _display("heading", data | {"times": times}, text, f"<p>{escape(text)}</p>")


def verdict(
    backlog: pd.DataFrame,
    audit: pd.DataFrame,
    end: pd.DataFrame | None = None,
    timezone: str = "UTC",
) -> None:
    """The one sentence that matters, from ``Queue.backlog()``, ``audit()``, ``eta_end_to_end()``.

    >>> show.verdict(queue.backlog(), queue.audit(), queue.eta_end_to_end(), "Europe/Berlin")
    """
    time_zone(timezone, "timezone")
    text = summary.sentence(backlog, audit, end, timezone)
    _display("verdict", {"text": text}, text, f"<p><strong>{escape(text)}</strong></p>")


def figures(values: Mapping[str, summary.Figure]) -> None:
    """Key figures, by name; a name that ends in ``_seconds`` is a duration, None is unknown.

    >>> show.figures(summary.key_figures(backlog, audit))
    """
    data = {_checked(name): formats.plain(value) for name, value in values.items()}
    tiles = [(label(name), cell(name, value)) for name, value in data.items()]
    rows = "".join(f"<tr><th>{escape(t)}</th><td>{escape(v)}</td></tr>" for t, v in tiles)
    text = "\n".join(f"{title}: {value}" for title, value in tiles)
    _display("figures", {"figures": data}, text, f"<table><tbody>{rows}</tbody></table>")


def table(name: str, frame: pd.DataFrame, caption: str = "", timezone: str = "UTC") -> None:
    """A frame as a table, and as ``tables/NAME.csv`` of a report.

    Times are shown in *timezone*, columns that end in ``_seconds`` as durations, columns without
    any value not at all; the CSV has everything, in UTC and seconds. Raises InputError for a name
    that is not lower-case letters, digits and underscores, and for an unknown time zone.
    """
    where = time_zone(timezone, "timezone")
    data = {
        "name": _checked(name),
        "columns": [str(column) for column in frame],
        "rows": [list(record.values()) for record in formats.records(frame)],
    }
    shown = frame.dropna(axis="columns", how="all") if len(frame) else frame
    columns = [_column(str(key), column, where) for key, column in shown.items()]
    rows = [f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True)]
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    parts = f"{title}<thead>{''.join(rows[:1])}</thead><tbody>{''.join(rows[1:])}</tbody>"
    none = "" if len(frame) else "<p>None.</p>"
    html = f'{_STYLE}<table class="records">{parts}</table>{none}'
    _display("table", data, formats.to_table(frame), html)


def chart(figure: "go.Figure", description: str) -> None:
    """A plotly figure; *description* says in words what it shows, for who cannot see it."""
    # Left to plotly, the renderer at hand decides, and some embed 5 MB of JavaScript.
    drawing = json.loads(figure.to_json()) | {"config": {"displaylogo": False, "responsive": True}}
    _display("chart", {"description": description}, description, drawing, PLOTLY)


def iso(time: datetime) -> str:
    """ISO 8601 in UTC, to the second: ``2026-11-22T10:30:00Z``."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def label(name: str) -> str:
    """A column's or figure's name for people; its unit is in the value."""
    return name.removesuffix("_seconds").replace("_", " ")


def cell(name: str, value: Any, where: ZoneInfo | None = None) -> str:
    """A value as people read it: thousands separated, durations in two units, local times."""
    value = formats.plain(value)
    if isinstance(value, datetime):
        return f"{value.astimezone(where or UTC):%Y-%m-%d %H:%M:%S}"
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = str(value)
        return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
    if name.endswith("_seconds"):
        return formats.duration(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name {name!r}: expected lower-case letters, digits and underscores, such as by_stage"
        )
    return name


def _column(name: str, column: "pd.Series[Any]", where: ZoneInfo) -> list[str]:
    """The cells of a column, its heading first; numbers and times say in ``data-v`` what to sort
    them by: the text is for people."""
    values = [formats.plain(value) for value in column.astype(object)]
    texts = [cell(name, value, where) for value in values]
    times = isinstance(column.dtype, pd.DatetimeTZDtype)
    title = escape(f"{label(name)} ({where})" if times else label(name))
    if not times and not pd.api.types.is_numeric_dtype(column):
        long = " class=long" if any(len(text) > _LONG for text in texts) else ""
        cells = (f'<td dir="auto"{long}>{escape(text)}</td>' for text in texts)
        return [f'<th scope="col">{title}</th>', *cells]
    keys = [value.timestamp() if isinstance(value, datetime) else value for value in values]
    cells = (
        f'<td class=n data-v="{"" if key is None else key}">{text}</td>'
        for key, text in zip(keys, texts, strict=True)
    )
    return [f'<th scope="col" class=n>{title}</th>', *cells]


def _display(
    kind: str, data: dict[str, Any], text: str, shown: Any, mime: str = "text/html"
) -> None:
    from IPython.display import display

    bundle = {mime: shown, MIME: {"kind": kind, **data}, "text/plain": text}
    display(bundle, raw=True)  # type: ignore[no-untyped-call]
