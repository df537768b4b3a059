"""Flow and forecasts as plotly figures, in the style of ``charts``: DataFrame in, no SQL.

Times are shown as the clocks of a time zone do; plotly has none, so it is given wall time.
"""

from html import escape

import pandas as pd
import plotly.graph_objects as go

from queue_insights.charts import MEDIAN, RANGE, TEMPLATE, THIS_WEEK

# Okabe and Ito's again, light beside dark; more steps than that are told apart by a pattern too.
STEPS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_TICKS = [
    {"dtickrange": [None, 86_400_000 - 1], "value": "%H:%M\n%a %b %-d"},
    {"dtickrange": [86_400_000, None], "value": "%b %-d\n%Y"},
]
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def throughput_by_hour(throughput: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """Completions an hour, on average, by hour of day and weekday: *throughput* is what
    ``Queue.throughput("4W", "1h", timezone)`` returns. The last hour, not over yet, is left out."""
    hours = throughput.groupby("bucket")["completions"].sum().iloc[:-1]
    local = pd.DatetimeIndex(hours.index).tz_convert(timezone)
    mean = hours.groupby([local.day_of_week, local.hour]).mean().unstack()
    mean = mean.reindex(index=range(7), columns=range(24))
    heat = go.Heatmap(
        x=[f"{hour:02}" for hour in range(24)],
        y=list(WEEKDAYS),
        z=[[None if pd.isna(n) else round(float(n), 3) for n in day] for day in mean.to_numpy()],
        zmin=0,
        zmax=max(1.0, *mean.max().dropna()),
        colorscale="Cividis",
        xgap=1,
        ygap=1,
        colorbar={"thickness": 10, "outlinewidth": 0, "xpad": 6},
        hovertemplate="%{y} %{x}:00<br>%{z:,.1f} completed an hour<extra></extra>",
    )
    figure = go.Figure(heat, layout={"template": TEMPLATE, "height": 300})
    figure.update_xaxes(type="category", title={"text": f"hour of day, {escape(timezone)}"})
    return figure.update_yaxes(type="category", autorange="reversed")


def depth_over_time(flow: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """The tracks at each step as time went, stacked in pipeline order: *flow* is what
    ``Queue.flow()`` returns. With the steps' completions below it would be the cumulative flow
    diagram; without, bands that are thin beside weeks of completions can be told apart."""
    figure = _over_time("tracks")
    for i, (task, step) in enumerate(flow.groupby("task_type", sort=False)):
        label, colour = escape(str(task), quote=False), STEPS[i % len(STEPS)]
        figure.add_scatter(
            x=_wall(step["bucket"], timezone),
            y=[int(depth) for depth in step["depth"]],
            name=label,
            mode="lines",
            stackgroup="steps",
            line={"width": 0.5, "color": colour, "shape": "hv"},
            fillcolor=colour,
            fillpattern={"shape": "/" if i >= len(STEPS) else "", "fillmode": "overlay"},
            hovertemplate="%{y:,d} " + label,
        )
    return figure.update_layout(hovermode="x unified")


def cumulative_flow(flow: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """The cumulative flow diagram of one step: *flow* is what ``Queue.flow(task=...)`` returns.

    Arrivals (with those who were there as it began) above, departures below: the gap between them
    is how many were there, and its width how long they stayed.
    """
    before = {name: flow[name].cumsum() - flow[name] for name in ("arrivals", "departures")}
    came = before["arrivals"] + flow["depth"].iloc[:1].sum()
    figure = _over_time("tracks since then")
    for name, counts, colour, fill in (
        ("departures", before["departures"], MEDIAN, None),
        ("arrivals", came, THIS_WEEK, "tonexty"),
    ):
        figure.add_scatter(
            x=_wall(flow["bucket"], timezone),
            y=[int(count) for count in counts],
            name=name,
            mode="lines",
            line={"color": colour, "dash": "solid" if fill else "dash"},
            fill=fill,
            fillcolor="rgba(86, 180, 233, 0.35)",
            hovertemplate="%{y:,d} " + name,
        )
    return figure.update_layout(hovermode="x unified", legend={"traceorder": "reversed"})


def drain_fan(step: pd.DataFrame, timezone: str = "UTC") -> go.Figure:
    """How what waits at one step falls to zero: *step* is its row of ``Queue.eta()``, such as
    ``eta.head(1)``. Straight from now to the end of the 80% range, its median, and the moment by
    which it is done 95 times in 100; without a range, or with nothing to do, the status."""
    row = step.iloc[0]
    figure = _over_time("waiting")
    figure.update_layout(legend={"traceorder": "normal"})
    if not row["clear_p50_seconds"] > 0:  # NaN compares false
        words = f"{row['task_type']}: {row['status'].replace('_', ' ')}"
        figure.add_annotation(text=escape(words, quote=False), showarrow=False, font={"size": 16})
        return figure.update_layout(height=120, xaxis={"visible": False}, yaxis={"visible": False})
    now = row["clear_p50_at"] - pd.Timedelta(seconds=row["clear_p50_seconds"])
    ends = {
        name: now + pd.Timedelta(seconds=row[f"clear_{name}_seconds"])
        for name in ("lower", "p50", "upper", "p95")
    }
    waiting = int(row["waiting"])
    figure.add_scatter(
        x=_wall(pd.Series([now, ends["upper"], ends["lower"], now]), timezone),
        y=[waiting, 0, 0, waiting],
        name="80% range",
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=RANGE,
        hoverinfo="skip",
    )
    for name, label, colour, dash in (
        ("p50", "median", MEDIAN, "solid"),
        ("p95", "95% sure", THIS_WEEK, "dot"),
    ):
        figure.add_scatter(
            x=_wall(pd.Series([now, ends[name]]), timezone),
            y=[waiting, 0],
            name=label,
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 3},
            hovertemplate=f"%{{y:,d}} waiting, %{{x|%a %H:%M}}<extra>{label}</extra>",
        )
    return figure


def calibration(backtests: pd.DataFrame) -> go.Figure:
    """What ranges promised beside what they held: *backtests* is what ``Queue.backtest()`` returns,
    at several levels. On the diagonal they keep their word; below it they are too narrow."""
    given = backtests.dropna(subset=["held"])
    levels = given.groupby("level")["held"].agg(["sum", "count"])
    shares = [float(held) / count for held, count in levels.itertuples(index=False)]
    lowest = max(min([0.4, *(share - 0.05 for share in shares)]), 0.0)
    perfect = go.Scatter(
        x=[lowest, 1],
        y=[lowest, 1],
        name="as promised",
        mode="lines",
        line={"color": "#8C8C8C", "dash": "dash"},
        hoverinfo="skip",
    )
    points = go.Scatter(
        x=[float(str(level)) for level in levels.index],
        y=shares,
        name="past ranges",
        mode="lines+markers",
        line={"color": THIS_WEEK},
        marker={"size": 10},
        customdata=[f"{held:,} of {count:,}" for held, count in levels.itertuples(index=False)],
        hovertemplate="%{x:.0%} ranges: %{customdata} held<extra></extra>",
    )
    figure = go.Figure([perfect, points], layout={"template": TEMPLATE, "height": 380})
    axis = {"tickformat": ".0%", "range": [lowest, 1.02], "dtick": 0.1}
    figure.update_xaxes(title={"text": "range given as"}, **axis)
    return figure.update_yaxes(title={"text": "share that held"}, showgrid=True, **axis)


def _over_time(title: str) -> go.Figure:
    figure = go.Figure(layout={"template": TEMPLATE, "height": 360})
    figure.update_xaxes(type="date", tickformatstops=_TICKS)
    return figure.update_yaxes(
        title={"text": title}, rangemode="tozero", showgrid=True, tickformat=",d"
    )


def _wall(times: pd.Series, timezone: str) -> list[str]:
    """Moments as the clock on the wall showed them; an hour that it showed twice comes twice."""
    return list(times.dt.tz_convert(timezone).dt.strftime("%Y-%m-%dT%H:%M:%S"))
