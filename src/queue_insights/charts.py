"""Frames as plotly figures: one style, steps in pipeline order. No SQL.

A colour has one meaning: a state's, what dashboards show, or time. All of them stand out from white
and from dark pages alike, by 3 to 1; states that could be taken for one another differ in pattern.
Text has the colour of the page, which its CSS gives (templates/chart.html.j2). Names from the
database or the pipeline file are text: plotly reads a subset of HTML, so they are escaped. Times
are those of a time zone's clocks: plotly knows no time zones, so it gets local times.
"""

from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

# From each state to its colour and pattern, in the order in which bars are stacked.
STYLES = {
    "missing": ("#D55E00", "/"),
    "pending": ("#0072B2", ""),
    "retryable": ("#3F97CC", "\\"),
    "backing_off": ("#C774A1", ""),
    "running": ("#009E73", ""),
    "stuck": ("#707070", "x"),
    "exhausted": ("#9A7D0A", ""),
    "drifted": ("#A6611A", "."),
    "skipped": ("#8C8C8C", ""),
    "blocked": ("#C2416B", "|"),
    "other": ("#8C8C8C", "-"),
}
DASHBOARD, TIME, FAINT_TIME = "#0E8C99", "#7072DB", "rgba(112, 114, 219, 0.45)"
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# Text and lines where no page gives them its own colours.
_TEXT, _LINE, _NONE = "#7F7F7F", "rgba(127, 127, 127, 0.3)", "rgba(0, 0, 0, 0)"
_AXIS = {"gridcolor": _LINE, "linecolor": _LINE, "automargin": True, "zeroline": False}
TEMPLATE = go.layout.Template(
    layout=go.Layout(
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13},
        font_color=_TEXT,
        paper_bgcolor=_NONE,
        plot_bgcolor=_NONE,
        margin={"l": 8, "r": 48, "t": 8, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "traceorder": "normal"},
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": "#1B1F24"}},
        bargap=0.3,
        xaxis=_AXIS,
        yaxis={**_AXIS, "showgrid": False, "ticklabelstandoff": 6},
    )
)
_LABEL = 22  # characters: a phone has no room for more beside its bars


def _of_frame(draw: Callable[..., go.Figure]) -> Callable[..., go.Figure]:
    """A chart of a frame; of one that this kind of queue has not got, the reason."""

    @wraps(draw)
    def drawn(frame: pd.DataFrame, *given: Any) -> go.Figure:
        why = frame.attrs.get("refused")
        return _nothing(why) if why else draw(frame, *given)

    return drawn


@_of_frame
def backlog_by_state(backlog: pd.DataFrame) -> go.Figure:
    """Tracks at each step, stacked by state: *backlog* is what ``Queue.backlog()`` returns. Only
    states that occur have a bar; the total stands at its end."""
    totals = backlog["total"].tolist()
    if not any(totals):
        return _nothing("Nothing is in the queue.")
    figure, steps = _by_step(backlog, backlog.attrs.get("items", "tracks"), max(totals))
    for state, style in STYLES.items():
        if backlog[state].sum() > 0:
            figure.add_trace(_bar(steps, backlog[state], state.replace("_", " "), style))
    return figure.add_trace(_texts(steps, totals, [f"{total:,.0f}" for total in totals]))


@_of_frame
def hidden_vs_visible(audit: pd.DataFrame) -> go.Figure:
    """For each step, what workers could take now, and below it what dashboards count as pending:
    *audit* is what ``Queue.audit()`` returns. The upper bar is split into missing (no task row) and
    what has one; the lower one may even be the longer, where rows are orphaned."""
    most = max([0, *audit["eligible"], *audit["visible"]])
    if not most:
        return _nothing("Nothing waits for a worker, and dashboards show nothing.")
    figure, steps = _by_step(audit, "tracks", most, height=56)
    with_row = audit["eligible"] - audit["hidden"]
    bars = (
        _bar(steps, audit["hidden"], "missing", STYLES["missing"], "truth"),
        _bar(steps, with_row, "with a task row", STYLES["pending"], "truth"),
        _bar(steps, audit["visible"], "shown by dashboards", (DASHBOARD, ""), "dashboard"),
    )
    return figure.add_traces(bars)


@_of_frame
def time_to_clear(eta: pd.DataFrame) -> go.Figure:
    """For each step, when the work that waits now will be done: *eta* is what ``Queue.eta()``
    returns. A bar is the 80% range in hours, parted at the median; without a range there is the
    status instead."""
    figure, labels = _by_step(eta, "hours from now", 1)
    frame = eta.assign(label=labels, status=eta["status"].str.replace("_", " "))
    for name in ("lower", "p50", "upper"):
        frame[name] = frame[f"clear_{name}_seconds"] / 3600
    # NaN compares false; nothing to do takes no time, which is no bar either.
    has_range = frame["p50"] > 0
    known, others = frame[has_range], frame[~has_range]
    if known.empty:
        why = ", ".join(status for status in others["status"].unique() if status != "empty")
        return _nothing(f"No step has a range: {why}." if why else "Nothing waits at any step.")
    hours = zip(*(known[name] for name in ("lower", "upper", "p50")), strict=True)
    said = [f"{a:,.1f} to {b:,.1f} hours, median {c:,.1f}" for a, b, c in hours]
    for name, start, end, pattern in (
        ("80% range, up to the median", "lower", "p50", ""),
        ("80% range, beyond it", "p50", "upper", "/"),
    ):
        bar = _bar(known["label"].tolist(), known[end] - known[start], name, (TIME, pattern))
        hover = "%{y}<br>%{customdata}<extra></extra>"
        figure.add_trace(
            bar.update(base=known[start].tolist(), customdata=said, hovertemplate=hover)
        )
    figure.add_trace(_texts(others["label"].tolist(), [0] * len(others), others["status"].tolist()))
    # Hours may be few.
    return figure.update_layout(barmode="overlay").update_xaxes(tickformat=",~g", dtick=None)


def throughput_by_hour(throughput: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """Completions an hour, on average, by hour of day and weekday: *throughput* is what
    ``Queue.throughput("4W", "1h", timezone)`` returns. The last hour, not over yet, is left out."""
    hours = throughput.groupby("bucket")["completions"].sum().iloc[:-1]
    if not hours.sum():
        return _nothing("Nothing was completed in this time.")
    local = pd.DatetimeIndex(hours.index).tz_convert(timezone)
    mean = hours.groupby([local.day_of_week, local.hour]).mean().unstack()
    mean = mean.reindex(index=range(7), columns=range(24))
    look = {"colorbar": {"thickness": 10, "outlinewidth": 0, "xpad": 6}, "xgap": 1, "ygap": 1}
    figure = _figure(300).add_heatmap(
        x=[f"{hour:02}" for hour in range(24)],
        y=list(WEEKDAYS),
        z=[[None if pd.isna(n) else round(float(n), 3) for n in day] for day in mean.to_numpy()],
        colorscale=[[0, "rgba(112, 114, 219, 0.05)"], [1, TIME]],
        **{"zmin": 0, "zmax": max(1.0, *mean.max().dropna()), **look},
        name="completed an hour",
        hovertemplate="%{y} %{x}:00<br>%{z:,.1f} completed an hour<extra></extra>",
    )
    hours_of = {"text": f"hour of day, {escape(timezone)}"}
    figure.update_xaxes(type="category", showgrid=False, title=hours_of)
    return figure.update_yaxes(type="category", autorange="reversed")


def depth_over_time(flow: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """The tracks at each step as time went, a small chart for each, all on one scale, in pipeline
    order: *flow* is what ``Queue.flow()`` returns."""
    tasks, most = flow["task_type"].unique(), flow["depth"].max()
    if not most > 0:
        return _nothing("Nothing was in the queue in this time.")
    figure = _over_time([_text(task) for task in tasks], 40 + 72 * len(tasks))
    for row, task in enumerate(tasks, 1):
        step = flow[flow["task_type"] == task]
        times, label = _local(step["bucket"], timezone), _text(task)
        figure.add_trace(_area(times, step["depth"].tolist(), label), row, 1)
    return figure.update_yaxes(range=[0, most], tickvals=[0, int(most)], tickformat=",d")


def cumulative_flow(flow: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """The cumulative flow diagram of one step: *flow* is what ``Queue.flow(task=...)`` returns.

    Arrivals (with those who were there as it began) above, departures below: the gap between them
    is how many were there, which is below once more on a scale of its own, and its width how long
    they stayed.
    """
    came, went = (flow[name].cumsum() - flow[name] for name in ("arrivals", "departures"))
    came = came + flow["depth"].iloc[:1].sum()
    if not came.sum():
        return _nothing("Nothing was at this step in this time.")
    times = _local(flow["bucket"], timezone)
    below = _line(times, went.tolist(), "departures", "%{y:,d} departures", dash="dash")
    above = _line(times, came.tolist(), "arrivals", "%{y:,d} arrivals")
    above.update(fill="tonexty", fillcolor=FAINT_TIME)
    figure = _over_time(["tracks since then", "there at the time"], 420)
    figure.add_traces([below, above], rows=[1, 1], cols=[1, 1])
    figure.add_trace(_area(times, flow["depth"].tolist(), "there at the time"), 2, 1)
    for row, most in enumerate((came.max(), flow["depth"].max()), 1):
        figure.update_yaxes(_counts(most), row=row)
    return figure.update_layout(legend={"traceorder": "reversed"})


def drain_fan(step: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """How what waits at one step falls to zero: *step* is its row of ``Queue.eta()``, such as
    ``eta.head(1)``. Straight from now to the end of the 80% range, its median, and the moment by
    which it is done 95 times in 100; without a range, or with nothing to do, the status."""
    if step.empty:
        return _nothing("Nothing waits at any step.")
    row = step.iloc[0]
    if not row["clear_p50_seconds"] > 0:  # NaN compares false
        return _nothing(f"{row['task_type']}: {row['status'].replace('_', ' ')}")
    now = row["clear_p50_at"] - pd.Timedelta(row["clear_p50_seconds"], "s")
    waiting = int(row["waiting"])

    def falling(*ends: str) -> list[str]:
        seconds = [0.0, *(row[f"clear_{end}_seconds"] for end in ends)]
        return _local(pd.Series([now + pd.Timedelta(s, "s") for s in seconds]), timezone)

    def none_left(when: str, *times: str) -> str:  # in words, for where no chart is seen
        shown = (time[:16].replace("T", " ") for time in times)
        return f"none of {waiting:,} left {when.format(*shown)}"

    figure = _over_time(["waiting"], 340)
    fan = _line(falling("upper", "lower"), [waiting, 0, 0], "80% range", width=0)
    fan.update(
        fill="toself", fillcolor=FAINT_TIME, meta=none_left("between {} and {}", *fan.x[:0:-1])
    )
    figure.add_trace(fan)
    for end, name, dash in (("p50", "median", "solid"), ("p95", "95% sure", "dot")):
        hover = name + ": %{y:,d} waiting, %{x|%a %H:%M}"
        line = _line(falling(end), [waiting, 0], name, hover, dash=dash, width=3)
        figure.add_trace(line.update(meta=none_left("by {}", line.x[-1])))
    return figure.update_yaxes(_counts(waiting))


def calibration(backtests: pd.DataFrame) -> go.Figure:
    """What ranges promised beside what they held: *backtests* is what ``Queue.backtest()`` returns,
    at several levels. On the diagonal they held as often as promised; below it they are too narrow.
    """
    levels = backtests.dropna(subset=["held"]).groupby("level")["held"].agg(["sum", "count"])
    if levels.empty:
        return _nothing("No past range can be judged yet: there is too little history.")
    promised, held, given = (c.tolist() for c in (levels.index, levels["sum"], levels["count"]))
    shares = [a / b for a, b in zip(held, given, strict=True)]
    lowest = max(min([0.4, *(share - 0.05 for share in shares)]), 0.0)
    diagonal = _line([lowest, 1], [lowest, 1], "as promised", dash="dash")
    hover = "%{x:.0%} ranges: %{customdata} held"
    points = _line(promised, shares, "past ranges", hover, "lines+markers")
    counts = [f"{a:,} of {b:,}" for a, b in zip(held, given, strict=True)]
    points.update(marker={"size": 10}, customdata=counts)
    figure = _figure(380).add_traces([diagonal, points])
    axis = {"tickformat": ".0%", "range": [lowest, 1.02], "dtick": 0.1}
    figure.update_xaxes(title={"text": "range given as"}, **axis)
    return figure.update_yaxes(title={"text": "share that held"}, showgrid=True, **axis)


def _nothing(why: str) -> go.Figure:
    """A figure without anything drawn; ``show.chart`` says why instead."""
    return go.Figure(layout={"meta": why})


def _figure(height: int, **layout: Any) -> go.Figure:
    return go.Figure(layout={"template": TEMPLATE, "height": height, **layout})


def _by_step(
    frame: pd.DataFrame, title: str, most: float, height: int = 40
) -> tuple[go.Figure, list[str]]:
    """A figure with a row for each step, the first at the top, each *height* pixels high; and what
    the rows are called: the task, and the stage at which it is due if it has one."""

    def called(task: str, stage: str | None, longest: int) -> str:
        at = f"<br><span style='font-size:.85em'>at {_text(stage, longest)}</span>"
        return _text(task, longest) + ("" if pd.isna(stage) else at)

    pairs = [*zip(frame["task_type"], frame["stage"], strict=True)]
    steps, short = ([called(*pair, longest) for pair in pairs] for longest in (200, _LABEL))
    figure = _figure(70 + height * len(steps), barmode="stack")
    figure.update_xaxes(title={"text": title}, **_counts(most))
    ends = [len(steps) - 0.5, -0.5]  # left to itself, plotly makes room above for the texts
    order = {"categoryorder": "array", "categoryarray": steps, "range": ends}
    return figure.update_yaxes(type="category", tickvals=steps, ticktext=short, **order), steps


def _over_time(titles: list[str], height: int) -> go.Figure:
    """A chart for each of the *titles*, below one another, all over the same time."""
    rows = len(titles)
    gap = 26 / height if rows > 1 else 0  # room for a title, as a share of the height
    figure = go.Figure().set_subplots(
        rows=rows, cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=gap
    )
    figure.update_layout(template=TEMPLATE, height=height, margin_t=28, hovermode="x unified")
    figure.update_layout(legend={"x": 1, "xanchor": "right"})  # beside the titles
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    return figure.update_xaxes(type="date").update_yaxes(rangemode="tozero", showgrid=True)


def _counts(most: float) -> dict[str, Any]:
    """An axis from zero to *most*, with few numbers on it, none of them twice."""
    whole = (n * 10**power for power in range(12) for n in (1, 2, 5))
    step = next(n for n in whole if n * 4 >= most)
    return {"rangemode": "tozero", "dtick": step, "tickformat": "~s" if most >= 10_000 else ",d"}


def _text(name: object, longest: int = 200) -> str:
    text = str(name)
    return escape(text if len(text) <= longest else f"{text[: longest - 1]}…", quote=False)


def _bar(
    steps: list[str], values: pd.Series, name: str, style: tuple[str, str], group: str | None = None
) -> go.Bar:
    colour, pattern = style
    drawn = {"shape": pattern, "fillmode": "overlay", "fgopacity": 0.6, "size": 6}
    look = {"orientation": "h", "marker": {"color": colour, "pattern": drawn}}
    hover = "%{y}<br>%{x:,d} " + name + "<extra></extra>"
    x = values.tolist()
    return go.Bar(x=x, y=steps, name=name, offsetgroup=group, hovertemplate=hover, **look)


def _line(
    x: list[Any], y: list[Any], name: str, hover: str = "", mode: str = "lines", **line: Any
) -> go.Scatter:
    """A line of such dash or width, and what it says under the mouse, if anything."""
    said = {"hovertemplate": f"{hover}<extra></extra>"} if hover else {"hoverinfo": "skip"}
    return go.Scatter(x=x, y=y, name=name, mode=mode, line={"color": TIME, **line}, **said)


def _area(times: list[str], depths: list[int], name: str) -> go.Scatter:
    area = _line(times, depths, name, "%{y:,d} " + name, width=1, shape="hv")
    return area.update(fill="tozeroy", fillcolor=TIME, showlegend=False)


def _texts(steps: list[str], at: list[float], texts: list[str]) -> go.Scatter:
    """Text to the right of the bars' ends."""
    look = {"textposition": "middle right", "cliponaxis": False, "showlegend": False}
    texts = [f" {text}" for text in texts]
    return go.Scatter(x=at, y=steps, mode="text", text=texts, hoverinfo="skip", **look)


def _local(times: pd.Series, timezone: str) -> list[str]:
    """Moments as local clocks showed them; an hour that they showed twice comes twice."""
    return list(times.dt.tz_convert(timezone).dt.strftime("%Y-%m-%dT%H:%M:%S"))
