"""What a notebook shows: in JupyterLab as it stands, on a report's page, and as data.

Each function displays its argument at once. The output carries HTML for people and, as
``application/vnd.queue-insights+json``, the same as data: ``queue-insights report`` reads those
into the page's header, ``summary.json`` and ``tables/*.csv``. Text is escaped wherever it goes.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from html import escape, unescape
from pathlib import Path
from typing import Any

import pandas as pd

from queue_insights import formats, summary
from queue_insights.buckets import time_zone
from queue_insights.database import Moment
from queue_insights.errors import InputError, QueueInsightsError, Refused
from queue_insights.queue import Queue

MIME = "application/vnd.queue-insights+json"
PLOTLY = "application/vnd.plotly.v1+json"
TABLES = "QUEUE_INSIGHTS_TABLES"  # while a report is made: the folder of its tables

_SAMPLES = 48  # at most so many bars stand for a line
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


def ask(queue: Queue, read: str, **given: Any) -> pd.DataFrame:
    """What the method *read* of *queue* answers; where such a queue has no such thing, an empty
    frame that carries the reason, which ``table`` and the charts show in its place.

    >>> audit = show.ask(queue, "audit")
    """
    try:
        found: pd.DataFrame = getattr(queue, read)(**given)
    except Refused as error:
        found = pd.DataFrame()
        found.attrs["refused"] = str(error)
    return found


def table(name: str, frame: pd.DataFrame, caption: str = "", timezone: str = "UTC") -> None:
    """A frame as a table, and as ``tables/NAME.csv`` of a report, which has everything, in UTC and
    seconds. Here times are in *timezone*, and columns without any value are left out. What
    ``save`` has cut says so: ``the first 100 of 10,000``.

    Raises InputError for a name that is not lower-case letters, digits and underscores, and for an
    unknown time zone.
    """
    if why := frame.attrs.get("refused"):
        return _display("note", {}, why, f"<p>{escape(why)}</p>")
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
    try:
        for page in pages:
            if not first or of < limit:
                first.append(page.head(limit - of))
            of += len(page)
    except Refused as error:
        first = [pd.DataFrame()]
        first[0].attrs["refused"] = str(error)
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
    if not figure.data:
        why = figure.layout.meta or "Nothing to show."
        return _display("note", {}, why, f"<p>{escape(why)}</p>")
    lines, keys = _lines(figure), _keys(figure)
    words = "; ".join(f"{row.label}: {', '.join(row.words)}" for row in lines)
    html = formats.TEMPLATES.get_template("chart.html.j2").render(rows=lines, keys=keys)
    # If plotly displayed it, its renderer might embed 5 MB of JavaScript each time.
    drawing = json.loads(figure.to_json())
    drawing["config"] = {"displayModeBar": False, "responsive": True}  # it would cover the legend
    data = {"description": description, "words": words, "keys": keys}
    _display("chart", data, f"{description}\n{words}", html, {PLOTLY: drawing})
    _display("caption", {}, description, f"<p class=said>{escape(description)}</p>")
    return None


@dataclass
class _Line:
    """A line of a figure as it is without plotly: a *label*, a bar of *parts*, and the same in
    *words*. A part is where it starts, its width and height in percent, colour and pattern."""

    label: str
    parts: list[tuple[Any, ...]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def _lines(figure: Any) -> list[_Line]:
    """What *figure* shows, for where there is no plotly and for who does not see it: a row for each
    bar and line, whose *words* are the whole of it. What is drawn in ways that are not used here
    has none."""
    readers = {"bar": _read_bars, "heatmap": _read_heat, "scatter": _read_line}
    found: dict[Any, _Line] = {}
    for number, trace in enumerate(figure.data):
        try:
            read = [*readers[trace.type](trace, number, figure)]
        except (KeyError, TypeError, ValueError, IndexError):  # somebody else's figure
            continue
        for key, label, parts, words in read:
            row = found.setdefault(key, _Line(_plain(label)))
            row.parts += [(*part, *_look(trace)) for part in parts]
            row.words += [words] if words and words not in row.words else []
    scale = 100 / max(
        (x + width for row in found.values() for x, width, *_ in row.parts), default=1
    )
    for row in found.values():
        row.parts = [(x * scale, w * scale, h * 100, *how) for x, w, h, *how in row.parts]
    order = [row.label for row in found.values()]  # the bars of one step beside one another
    return sorted(found.values(), key=lambda row: order.index(row.label))


def _keys(figure: Any) -> list[tuple[str, str, str]]:
    """The name, colour and pattern (or dash) of each kind of mark in *figure*."""
    named = [each for each in figure.data if each.name and each.showlegend is not False]
    return [(_plain(each.name), *_look(each)) for each in named]


def _look(trace: Any) -> tuple[str, str]:
    """Colour and pattern, or dash, of what a trace draws."""
    if trace.type == "bar":
        return trace.marker.color or "currentColor", trace.marker.pattern.shape or ""
    if trace.type == "heatmap":
        return trace.colorscale[-1][1], ""
    is_line = trace.line.width != 0 and trace.fill != "tozeroy"
    colour = trace.line.color if is_line else trace.fillcolor
    return colour or "currentColor", trace.line.dash or "solid" if is_line else ""


def _read_bars(trace: Any, number: int, figure: Any) -> Iterator[tuple[Any, ...]]:
    bars = [(n, each) for n, each in enumerate(figure.data) if each.type == "bar"]
    stack = [(n, each) for n, each in bars if each.offsetgroup == trace.offsetgroup]
    under = [each for n, each in stack if n < number]
    for i, (label, value) in enumerate(zip(trace.y, trace.x, strict=True)):
        start = trace.base[i] if trace.base is not None else sum(each.x[i] for each in under)
        words = f"{value:,} {trace.name}" if trace.customdata is None else trace.customdata[i]
        parts = [(start, value, 1)] if value else []
        says = value or len(stack) == 1  # of a stack, the parts that are there
        yield (label, trace.offsetgroup or ""), label, parts, words if says else ""


def _read_heat(trace: Any, number: int, figure: Any) -> Iterator[tuple[Any, ...]]:
    for label, values in zip(trace.y, trace.z, strict=True):
        known = [value or 0 for value in values]
        words = f"{max(known):,.3g} {trace.name} at most, at {trace.x[known.index(max(known))]}"
        yield label, label, _columns(known, trace.zmax), words


def _read_line(trace: Any, number: int, figure: Any) -> Iterator[tuple[Any, ...]]:
    if trace.mode == "text":
        for label, text in zip(trace.y, trace.text, strict=True):
            is_total = text.strip()[:1].isdigit()
            yield (label, ""), label, [], text.strip() + (" in all" if is_total else "")
    elif len(trace.y) > 6:
        axis = figure.layout[f"yaxis{(trace.yaxis or 'y')[1:]}"]
        words = f"{trace.y[0]:,} at first, {max(trace.y):,} at most, {trace.y[-1]:,} at last"
        yield number, trace.name, _columns(trace.y, axis.range[1] if axis.range else 0), words
    else:
        points = zip(trace.x, trace.y, strict=True)
        words = ", ".join(f"{_plain(x)}: {y:,.4g}" for x, y in points)
        yield number, trace.name, [], trace.meta or words


def _columns(values: Sequence[float], most: float) -> list[tuple[float, float, float]]:
    """Columns beside one another as high as the *values*, the highest of a few in one."""
    few = -(-len(values) // _SAMPLES)
    highest = [max(values[i : i + few]) for i in range(0, len(values), few)]
    return [(i, 1, value / (most or max(highest) or 1)) for i, value in enumerate(highest)]


def _plain(name: object) -> str:
    """A label without plotly's markup, a time without its seconds."""
    text = re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d$", r"\1 \2", str(name))
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", text))).strip()


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
