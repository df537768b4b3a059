"""Frames as plotly figures: one style, colour-blind safe, steps in pipeline order. No SQL.

The colours are Okabe and Ito's (Color Universal Design, 2008); neighbours that could be taken for
one another differ in pattern too. Names from the database or the pipeline file are text: plotly
reads a subset of HTML, so they are escaped.
"""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from queue_insights.states import STATES

# state: colour, pattern
STYLES = {
    "missing": ("#D55E00", "/"),
    "pending": ("#0072B2", ""),
    "retryable": ("#56B4E9", ""),
    "backing_off": ("#CC79A7", ""),
    "running": ("#009E73", ""),
    "stuck": ("#6E6E6E", "x"),
    "exhausted": ("#F0E442", ""),
    "drifted": ("#E69F00", "."),
    "skipped": ("#B3B3B3", ""),
    "other": ("#D9D9D9", "-"),
}
LAST_WEEK, THIS_WEEK, RANGE, MEDIAN = "#B3B3B3", "#0072B2", "#56B4E9", "#D55E00"
HIDDEN, VISIBLE, DASHBOARD = STYLES["missing"], STYLES["pending"], ("#8C8C8C", "")
GRID = "#e3e3e3"

# Colours of text, grid and ground are the page's to change: it may be dark.
TEMPLATE = go.layout.Template(
    layout=go.Layout(
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"l": 8, "r": 32, "t": 8, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "traceorder": "normal"},
        hoverlabel={"align": "left"},
        bargap=0.3,
        xaxis={"gridcolor": GRID, "zeroline": False, "automargin": True, "tickformat": ",d"},
        yaxis={"gridcolor": GRID, "showgrid": False, "automargin": True, "ticklabelstandoff": 6},
    )
)


def backlog_by_state(backlog: pd.DataFrame) -> go.Figure:
    """Tracks at each step, stacked by state: *backlog* is what ``Queue.backlog()`` returns.

    Only states that occur have a bar; the total stands at its end.
    """
    steps = _steps(backlog)
    figure = go.Figure(layout=_layout(len(steps), "tracks"))
    for state in STATES:
        if backlog[state].sum() > 0:
            label = state.replace("_", " ")
            figure.add_trace(_bar(steps, backlog[state], label, STYLES[state]))
    totals = [int(total) for total in backlog["tracks"]]
    return figure.add_trace(_words(steps, totals, [f"{total:,}" for total in totals]))


def hidden_vs_visible(audit: pd.DataFrame) -> go.Figure:
    """For each step, what workers could take now, and below it what dashboards count as pending.

    *audit* is what ``Queue.audit()`` returns. The upper bar is split into hidden (no task row, so
    in no dashboard) and recorded; the lower one may even be the longer, where rows are orphaned.
    """
    steps = _steps(audit)
    figure = go.Figure(layout=_layout(len(steps), "tracks", 56))
    recorded = audit["eligible"] - audit["hidden"]
    figure.add_trace(_bar(steps, audit["hidden"], "hidden", HIDDEN, "truth"))
    figure.add_trace(_bar(steps, recorded, "waits with a task row", VISIBLE, "truth"))
    figure.add_trace(_bar(steps, audit["visible"], "dashboards show", DASHBOARD, "dashboard"))
    return figure


def time_to_clear(eta: pd.DataFrame) -> go.Figure:
    """For each step, when the work that waits now will be done: *eta* is what ``Queue.eta()``
    returns. A bar is the 80% range, the line in it the median; without a range, the status."""
    eta = eta.set_axis(_steps(eta))
    # NaN compares false; nothing to do takes no time, which is no bar either.
    has_range = eta["clear_p50_seconds"] > 0
    known, unknown = eta[has_range], eta[~has_range]
    names = ("lower", "p50", "upper")
    lower, median, upper = ((known[f"clear_{name}_seconds"] / 3600).tolist() for name in names)
    ranges = go.Bar(
        base=lower,
        x=[high - low for low, high in zip(lower, upper, strict=True)],
        y=known.index.tolist(),
        name="80% range",
        orientation="h",
        marker={"color": RANGE},
        customdata=[f"{low:,.1f} to {high:,.1f}" for low, high in zip(lower, upper, strict=True)],
        hovertemplate="%{y}<br>%{customdata} hours<extra></extra>",
    )
    middle = go.Scatter(
        x=median,
        y=known.index.tolist(),
        mode="markers",
        name="median",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": MEDIAN}},
        hovertemplate="%{y}<br>median %{x:,.1f} hours<extra></extra>",
    )
    figure = go.Figure([ranges, middle], layout=_layout(len(eta), "hours from now"))
    words = unknown["status"].str.replace("_", " ").tolist()
    figure.add_trace(_words(unknown.index.tolist(), [0] * len(unknown), words))
    figure.update_xaxes(tickformat=",~g")  # hours may be few
    # A step without a range has its place too.
    return figure.update_yaxes(categoryorder="array", categoryarray=eta.index.tolist())


def week_over_week(throughput: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """Completions a day, the last seven days beside the seven before: *throughput* is what
    ``Queue.throughput("14D", "1D", timezone)`` returns. The last day is not over."""
    days = throughput.groupby("bucket")["completions"].sum()
    days.index = pd.DatetimeIndex(days.index).tz_convert(timezone)
    figure = go.Figure(layout={"template": TEMPLATE, "height": 320, "barmode": "group"})
    figure.update_layout(xaxis={"type": "category"}, yaxis={"title": {"text": "completions"}})
    weekdays = [f"{day:%a}" for day in days.index[-7:]]
    for name, week, colour in (
        ("the week before", days.iloc[-14:-7], LAST_WEEK),
        ("last 7 days", days.iloc[-7:], THIS_WEEK),
    ):
        figure.add_bar(
            x=weekdays[-len(week) :],
            y=[int(count) for count in week],
            name=name,
            marker={"color": colour},
            customdata=[f"{day:%a %Y-%m-%d}" for day in week.index],
            hovertemplate="%{customdata}<br>%{y:,d} completed<extra></extra>",
        )
    return figure


def _steps(frame: pd.DataFrame) -> list[str]:
    """A step's label: its task, and the stage at which it is due."""
    return [
        f"{escape(task, quote=False)}<br><span style='font-size:.85em'>at "
        f"{escape(stage, quote=False)}</span>"
        for task, stage in zip(frame["task_type"], frame["stage"], strict=True)
    ]


def _layout(steps: int, title: str, height: int = 40) -> go.Layout:
    return go.Layout(
        template=TEMPLATE,
        barmode="stack",
        height=110 + height * max(steps, 4),
        xaxis={"title": {"text": title}, "rangemode": "tozero"},
        yaxis={"type": "category", "autorange": "reversed"},
    )


def _bar(
    steps: list[str], values: pd.Series, name: str, style: tuple[str, str], group: str = ""
) -> go.Bar:
    colour, pattern = style
    drawn = {"shape": pattern, "fillmode": "overlay", "fgopacity": 0.6, "size": 6}
    return go.Bar(
        x=[int(value) for value in values],
        y=steps,
        name=name,
        orientation="h",
        offsetgroup=group or None,
        marker={"color": colour, "pattern": drawn},
        hovertemplate="%{y}<br>%{x:,d} " + name + "<extra></extra>",
    )


def _words(steps: list[str], at: list[int], words: list[str]) -> go.Scatter:
    """Text to the right of the bars' ends."""
    return go.Scatter(
        x=at,
        y=steps,
        mode="text",
        text=[f" {word}" for word in words],
        textposition="middle right",
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
    )
