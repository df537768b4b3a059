"""What a notebook shows: in JupyterLab as it stands, in a report's page, and as data.

Each function displays its argument at once. The output carries HTML for people and, as
``application/vnd.queue-insights+json``, the same as data: ``queue-insights report`` reads those
into the page's header, ``summary.json`` and ``tables/*.csv``. Text is escaped wherever it goes.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pandas as pd

from queue_insights import formats, summary
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
        times += f" ({as_of.astimezone(zone(timezone)):%Y-%m-%d %H:%M} {timezone})"
    text = f"Queue {queue.pipeline.name} in {queue.database.name}, as of {times}"
    if moment.replay_lag_seconds is not None:
        lag = formats.duration(moment.replay_lag_seconds)
        data["warnings"] = [f"Read from a standby that is {lag} behind."]
        text += f", from a standby that is {lag} behind"
    _display("heading", data | {"times": times}, f"<p>{escape(text)}</p>", text)


def verdict(
    backlog: pd.DataFrame,
    audit: pd.DataFrame,
    end: pd.DataFrame | None = None,
    timezone: str = "UTC",
) -> None:
    """The one sentence that matters, from ``Queue.backlog()``, ``audit()``, ``eta_end_to_end()``.

    >>> show.verdict(queue.backlog(), queue.audit(), queue.eta_end_to_end(), "Europe/Berlin")
    """
    zone(timezone)
    text = summary.sentence(backlog, audit, end, timezone)
    _display("verdict", {"text": text}, f"<p><strong>{escape(text)}</strong></p>", text)


def figures(values: Mapping[str, summary.Figure]) -> None:
    """Key figures, by name; a name that ends in ``_seconds`` is a duration, None is unknown.

    >>> show.figures(summary.key_figures(backlog, audit))
    """
    data = {_checked(name): _plain(value) for name, value in values.items()}
    tiles = [(name, label(name), cell(name, value)) for name, value in data.items()]
    rows = "".join(f"<tr><th>{escape(t)}</th><td>{escape(v)}</td></tr>" for _, t, v in tiles)
    text = "\n".join(f"{title}: {value}" for _, title, value in tiles)
    _display("figures", {"figures": data}, f"<table><tbody>{rows}</tbody></table>", text)


def table(name: str, frame: pd.DataFrame, caption: str = "", timezone: str = "UTC") -> None:
    """A frame as a table, and as ``tables/NAME.csv`` of a report.

    Times are shown in *timezone*, columns that end in ``_seconds`` as durations, columns without
    any value not at all; the CSV has everything, in UTC and seconds. Raises InputError for a name
    that is not lower-case letters, digits and underscores, and for an unknown time zone.
    """
    where = zone(timezone)
    data = {
        "name": _checked(name),
        "columns": [str(column) for column in frame],
        "rows": [list(record.values()) for record in formats.records(frame)],
    }
    shown = frame.dropna(axis="columns", how="all") if len(frame) else frame
    html = _table(shown, caption, timezone, where)
    _display("table", data, html, formats.to_table(frame))


def chart(figure: "go.Figure", description: str) -> None:
    """A plotly figure; *description* says in words what it shows, for who cannot see it."""
    from IPython.display import display

    # Left to plotly, the renderer at hand decides, and some embed 5 MB of JavaScript.
    drawing = json.loads(figure.to_json()) | {"config": {"displaylogo": False, "responsive": True}}
    data = {"kind": "chart", "description": description}
    bundle = {PLOTLY: drawing, MIME: data, "text/plain": description}
    display(bundle, raw=True)  # type: ignore[no-untyped-call]


def zone(timezone: str) -> ZoneInfo:
    """The time zone of that IANA name. Raises InputError for an unknown one."""
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            f"unknown time zone {timezone!r}: expected a name such as Europe/Berlin or UTC"
        ) from None


def iso(time: datetime) -> str:
    """ISO 8601 in UTC, to the second: ``2026-11-22T10:30:00Z``."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def label(name: str) -> str:
    """A column's or figure's name for people; its unit is in the value."""
    return name.removesuffix("_seconds").replace("_", " ")


def cell(name: str, value: Any, where: ZoneInfo | None = None) -> str:
    """A value as people read it: thousands separated, durations in two units, local times."""
    value = _plain(value)
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


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name {name!r}: expected lower-case letters, digits and underscores, such as by_stage"
        )
    return name


def _table(frame: pd.DataFrame, caption: str, timezone: str, where: ZoneInfo) -> str:
    head, columns = "", []
    for name in map(str, frame):
        values = [_plain(value) for value in frame[name].astype(object)]
        times = isinstance(frame[name].dtype, pd.DatetimeTZDtype)
        numeric = times or pd.api.types.is_numeric_dtype(frame[name])
        title = f"{label(name)} ({timezone})" if times else label(name)
        head += f'<th scope="col"{" class=n" if numeric else ""}>{escape(title)}</th>'
        texts = [cell(name, value, where) for value in values]
        columns.append(_numbers(values, texts) if numeric else _texts(texts))
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True))
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    rows = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    none = "" if len(frame) else "<p>None.</p>"
    return f'{_STYLE}<table class="records">{title}{rows}</table>{none}'


def _numbers(values: list[Any], texts: list[str]) -> list[str]:
    """Cells that say in ``data-v`` what to sort them by: the text is for people."""
    keys = [value.timestamp() if isinstance(value, datetime) else value for value in values]
    return [
        f'<td class=n data-v="{"" if key is None else key}">{text}</td>'
        for key, text in zip(keys, texts, strict=True)
    ]


def _texts(texts: list[str]) -> list[str]:
    long = " class=long" if any(len(text) > _LONG for text in texts) else ""
    return [f'<td dir="auto"{long}>{escape(text)}</td>' for text in texts]


def _display(kind: str, data: dict[str, Any], html: str, text: str) -> None:
    from IPython.display import display

    bundle = {MIME: {"kind": kind, **data}, "text/html": html, "text/plain": text}
    display(bundle, raw=True)  # type: ignore[no-untyped-call]
