"""Frames as plotly figures: one style, colour-blind safe, steps in pipeline order. No SQL.

The colours are Okabe and Ito's (Color Universal Design, 2008); neighbours that could be taken for
one another differ in pattern too. Names from the database or the pipeline file are text: plotly
reads a subset of HTML, so they are escaped. Times are those of a time zone's clocks: plotly knows
no time zones, so it gets local times.
"""

from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, GREY, PALE = "#56B4E9", "#D55E00", "#F0E442", "#8C8C8C", "#B3B3B3"
# From each state to its colour and pattern, in the order in which bars are stacked.
STYLES = {
    "missing": (RED, "/"),
    "pending": (BLUE, ""),
    "retryable": (SKY, ""),
    "backing_off": (PURPLE, ""),
    "running": (GREEN, ""),
    "stuck": ("#6E6E6E", "x"),
    "exhausted": (YELLOW, ""),
    "drifted": (ORANGE, "."),
    "skipped": (PALE, ""),
    "blocked": (PURPLE, "|"),
    "other": ("#D9D9D9", "-"),
}
# Light beside dark; more steps than colours are told apart by a pattern.
STEPS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW)
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# Colours of text, grid and background are the page's to change: it may be dark.
_AXIS = {"gridcolor": "#e3e3e3", "automargin": True}
TEMPLATE = go.layout.Template(
    layout=go.Layout(
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 8, "r": 32, "t": 8, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "traceorder": "normal"},
        hoverlabel={"align": "left"},
        bargap=0.3,
        xaxis={**_AXIS, "zeroline": False, "tickformat": ",d"},
        yaxis={**_AXIS, "showgrid": False, "ticklabelstandoff": 6},
    )
)


def backlog_by_state(backlog: pd.DataFrame) -> go.Figure:
    """Tracks at each step, stacked by state: *backlog* is what ``Queue.backlog()`` returns. Only
    states that occur have a bar; the total stands at its end."""
    steps, totals = _steps(backlog), backlog["total"].tolist()
    figure = _by_step(len(steps), "tracks")
    for state, style in STYLES.items():
        if backlog[state].sum() > 0:
            figure.add_trace(_bar(steps, backlog[state], state.replace("_", " "), style))
    return figure.add_trace(_texts(steps, totals, [f"{total:,.0f}" for total in totals]))


def hidden_vs_visible(audit: pd.DataFrame) -> go.Figure:
    """For each step, what workers could take now, and below it what dashboards count as pending:
    *audit* is what ``Queue.audit()`` returns. The upper bar is split into hidden (no task row) and
    recorded; the lower one may even be the longer, where rows are orphaned."""
    steps = _steps(audit)
    recorded = audit["eligible"] - audit["hidden"]
    bars = (
        _bar(steps, audit["hidden"], "hidden", STYLES["missing"], "truth"),
        _bar(steps, recorded, "waits with a task row", STYLES["pending"], "truth"),
        _bar(steps, audit["visible"], "dashboards show", (GREY, ""), "dashboard"),
    )
    return _by_step(len(steps), "tracks", height=56).add_traces(bars)


def time_to_clear(eta: pd.DataFrame) -> go.Figure:
    """For each step, when the work that waits now will be done: *eta* is what ``Queue.eta()``
    returns. A bar is the 80% range in hours, the line in it the median; without a range there is
    the status instead."""
    eta = eta.set_axis(_steps(eta))
    # NaN compares false; nothing to do takes no time, which is no bar either.
    has_range = eta["clear_p50_seconds"] > 0
    known, unknown = eta[has_range], eta[~has_range]
    steps, others = known.index.tolist(), unknown.index.tolist()
    lower, median, upper = (known[f"clear_{n}_seconds"] / 3600 for n in ("lower", "p50", "upper"))
    ranges = _bar(steps, upper - lower, "80% range", (SKY, "")).update(
        base=lower.tolist(),
        customdata=[f"{a:,.1f} to {b:,.1f}" for a, b in zip(lower, upper, strict=True)],
        hovertemplate="%{y}<br>%{customdata} hours<extra></extra>",
    )
    hover = "%{y}<br>median %{x:,.1f} hours"
    marks = {"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": RED}}
    medians = _line(median.tolist(), steps, "median", hover, "markers").update(marker=marks)
    statuses = _texts(others, [0] * len(others), unknown["status"].str.replace("_", " ").tolist())
    figure = _by_step(len(eta), "hours from now").add_traces([ranges, medians, statuses])
    figure.update_xaxes(tickformat=",~g")  # hours may be few
    # A step without a range has its place too.
    return figure.update_yaxes(categoryorder="array", categoryarray=eta.index.tolist())


def throughput_by_hour(throughput: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """Completions an hour, on average, by hour of day and weekday: *throughput* is what
    ``Queue.throughput("4W", "1h", timezone)`` returns. The last hour, not over yet, is left out."""
    hours = throughput.groupby("bucket")["completions"].sum().iloc[:-1]
    local = pd.DatetimeIndex(hours.index).tz_convert(timezone)
    mean = hours.groupby([local.day_of_week, local.hour]).mean().unstack()
    mean = mean.reindex(index=range(7), columns=range(24))
    look = {"colorscale": "Cividis", "colorbar": {"thickness": 10, "outlinewidth": 0, "xpad": 6}}
    figure = _figure(300).add_heatmap(
        x=[f"{hour:02}" for hour in range(24)],
        y=list(WEEKDAYS),
        z=[[None if pd.isna(n) else round(float(n), 3) for n in day] for day in mean.to_numpy()],
        **{"zmin": 0, "zmax": max(1.0, *mean.max().dropna()), "xgap": 1, "ygap": 1, **look},
        hovertemplate="%{y} %{x}:00<br>%{z:,.1f} completed an hour<extra></extra>",
    )
    figure.update_xaxes(type="category", title={"text": f"hour of day, {escape(timezone)}"})
    return figure.update_yaxes(type="category", autorange="reversed")


def depth_over_time(flow: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """The tracks at each step as time went, stacked in pipeline order: *flow* is what
    ``Queue.flow()`` returns."""
    figure = _over_time("tracks")
    for i, (task, step) in enumerate(flow.groupby("task_type", sort=False)):
        label, colour = _text(task), STEPS[i % len(STEPS)]
        times, depths = _local(step["bucket"], timezone), step["depth"].tolist()
        band = _line(times, depths, label, "%{y:,d} " + label, color=colour, width=0.5, shape="hv")
        pattern = {"shape": "/" if i >= len(STEPS) else "", "fillmode": "overlay"}
        figure.add_trace(band.update(stackgroup="steps", fillcolor=colour, fillpattern=pattern))
    return figure.update_layout(hovermode="x unified")


def cumulative_flow(flow: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """The cumulative flow diagram of one step: *flow* is what ``Queue.flow(task=...)`` returns.

    Arrivals (with those who were there as it began) above, departures below: the gap between them
    is how many were there, and its width how long they stayed.
    """
    came, went = (flow[name].cumsum() - flow[name] for name in ("arrivals", "departures"))
    came = came + flow["depth"].iloc[:1].sum()
    times = _local(flow["bucket"], timezone)
    below = _line(times, went.tolist(), "departures", "%{y:,d} departures", color=RED, dash="dash")
    above = _line(times, came.tolist(), "arrivals", "%{y:,d} arrivals", color=BLUE)
    above.update(fill="tonexty", fillcolor="rgba(86, 180, 233, 0.35)")
    figure = _over_time("tracks since then").add_traces([below, above])
    return figure.update_layout(hovermode="x unified", legend={"traceorder": "reversed"})


def drain_fan(step: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """How what waits at one step falls to zero: *step* is its row of ``Queue.eta()``, such as
    ``eta.head(1)``. Straight from now to the end of the 80% range, its median, and the moment by
    which it is done 95 times in 100; without a range, or with nothing to do, the status."""
    row = step.iloc[0]
    figure = _over_time("waiting")
    if not row["clear_p50_seconds"] > 0:  # NaN compares false
        status = _text(f"{row['task_type']}: {row['status'].replace('_', ' ')}")
        figure.add_annotation(text=status, showarrow=False, font={"size": 16})
        return figure.update_layout(height=120, xaxis={"visible": False}, yaxis={"visible": False})
    now = row["clear_p50_at"] - pd.Timedelta(row["clear_p50_seconds"], "s")
    waiting = int(row["waiting"])

    def falling(*ends: str) -> list[str]:
        seconds = [0.0, *(row[f"clear_{end}_seconds"] for end in ends)]
        return _local(pd.Series([now + pd.Timedelta(s, "s") for s in seconds]), timezone)

    fan = _line(falling("upper", "lower"), [waiting, 0, 0], "80% range", width=0)
    figure.add_trace(fan.update(fill="toself", fillcolor=SKY))
    for end, name, colour, dash in (("p50", "median", RED, None), ("p95", "95% sure", BLUE, "dot")):
        hover, look = (
            ": %{y:,d} waiting, %{x|%a %H:%M}",
            {"color": colour, "dash": dash, "width": 3},
        )
        line = _line(falling(end), [waiting, 0], name, name + hover, "lines+markers", **look)
        figure.add_trace(line)
    return figure


def calibration(backtests: pd.DataFrame) -> go.Figure:
    """What ranges promised beside what they held: *backtests* is what ``Queue.backtest()`` returns,
    at several levels. On the diagonal they held as often as promised; below it they are too narrow.
    """
    levels = backtests.dropna(subset=["held"]).groupby("level")["held"].agg(["sum", "count"])
    promised, held, given = (c.tolist() for c in (levels.index, levels["sum"], levels["count"]))
    shares = [a / b for a, b in zip(held, given, strict=True)]
    lowest = max(min([0.4, *(share - 0.05 for share in shares)]), 0.0)
    diagonal = _line([lowest, 1], [lowest, 1], "as promised", color=GREY, dash="dash")
    hover = "%{x:.0%} ranges: %{customdata} held"
    points = _line(promised, shares, "past ranges", hover, "lines+markers", color=BLUE)
    counts = [f"{a:,} of {b:,}" for a, b in zip(held, given, strict=True)]
    points.update(marker={"size": 10}, customdata=counts)
    figure = _figure(380).add_traces([diagonal, points])
    axis = {"tickformat": ".0%", "range": [lowest, 1.02], "dtick": 0.1}
    figure.update_xaxes(title={"text": "range given as"}, **axis)
    return figure.update_yaxes(title={"text": "share that held"}, showgrid=True, **axis)


def _figure(height: int, **layout: Any) -> go.Figure:
    return go.Figure(layout={"template": TEMPLATE, "height": height, **layout})


def _by_step(steps: int, title: str, height: int = 40) -> go.Figure:
    """A figure with a row for each step, the first at the top, each *height* pixels high."""
    figure = _figure(110 + height * max(steps, 4), barmode="stack")
    figure.update_xaxes(title={"text": title}, rangemode="tozero")
    return figure.update_yaxes(type="category", autorange="reversed")


def _over_time(title: str) -> go.Figure:
    figure = _figure(360).update_xaxes(type="date")
    axis = {"rangemode": "tozero", "showgrid": True, "tickformat": ",d"}
    return figure.update_yaxes(title={"text": title}, **axis)


def _text(name: object) -> str:
    return escape(str(name), quote=False)


def _steps(frame: pd.DataFrame) -> list[str]:
    """A step's label: its task, and the stage at which it is due if it has one."""
    at = "<br><span style='font-size:.85em'>at {}</span>"
    stages = ["" if pd.isna(stage) else at.format(_text(stage)) for stage in frame["stage"]]
    return [_text(task) + stage for task, stage in zip(frame["task_type"], stages, strict=True)]


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
    """A line of such colour, dash or width, and what it says under the mouse, if anything."""
    said = {"hovertemplate": f"{hover}<extra></extra>"} if hover else {"hoverinfo": "skip"}
    return go.Scatter(x=x, y=y, name=name, mode=mode, line=line, **said)


def _texts(steps: list[str], at: list[float], texts: list[str]) -> go.Scatter:
    """Text to the right of the bars' ends."""
    look = {"textposition": "middle right", "cliponaxis": False, "showlegend": False}
    texts = [f" {text}" for text in texts]
    return go.Scatter(x=at, y=steps, mode="text", text=texts, hoverinfo="skip", **look)


def _local(times: pd.Series, timezone: str) -> list[str]:
    """Moments as local clocks showed them; an hour that they showed twice comes twice."""
    return list(times.dt.tz_convert(timezone).dt.strftime("%Y-%m-%dT%H:%M:%S"))
