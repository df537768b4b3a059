"""Frames as plotly figures: one style, colour-blind safe, steps in pipeline order. No SQL.

The colours are Okabe and Ito's (Color Universal Design, 2008); neighbours that could be taken for
one another differ in pattern too. Names from the database or the pipeline file are text: plotly
reads a subset of HTML, so they are escaped.
"""

from html import escape
from typing import Any

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
HIDDEN, VISIBLE, DASHBOARD = STYLES["missing"], STYLES["pending"], ("#8C8C8C", "")

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
        xaxis={"gridcolor": "#e3e3e3", "zeroline": False, "automargin": True, "tickformat": ",d"},
        yaxis={"automargin": True, "ticklabelstandoff": 6, "showgrid": False},
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
    return figure.add_trace(_totals(steps, backlog["tracks"]))


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


def _steps(frame: pd.DataFrame) -> list[str]:
    """A step's label: its task, and the stage at which it is due."""
    pairs = zip(frame["task_type"], frame["stage"], strict=True)
    return [
        f"{escape(task, quote=False)}<br><span style='font-size:.85em'>at "
        f"{escape(stage, quote=False)}</span>"
        for task, stage in pairs
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
    marker: dict[str, Any] = {"color": colour}
    if pattern:
        marker["pattern"] = {"shape": pattern, "fillmode": "overlay", "fgopacity": 0.6, "size": 6}
    return go.Bar(
        x=[int(value) for value in values],
        y=steps,
        name=name,
        orientation="h",
        offsetgroup=group or None,
        marker=marker,
        hovertemplate="%{y}<br>%{x:,d} " + name + "<extra></extra>",
    )


def _totals(steps: list[str], totals: pd.Series) -> go.Scatter:
    return go.Scatter(
        x=[int(total) for total in totals],
        y=steps,
        mode="text",
        text=[f" {int(total):,}" for total in totals],
        textposition="middle right",
        showlegend=False,
        hoverinfo="skip",
        cliponaxis=False,
    )
