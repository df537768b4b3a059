"""Charts say what the frame says, in the clocks of the zone, and names in them are text."""

import json

import pandas as pd

from queue_insights import charts
from queue_insights.reads import STATES
from reporting import contrast

NOW = pd.Timestamp("2026-11-22 10:00", tz="UTC")
BERLIN = "Europe/Berlin"  # an hour ahead then
NAN = float("nan")


def frame(*steps: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{"stage": "s", "task_type": "t", **step} for step in steps])


def backlog(*steps: dict[str, object]) -> pd.DataFrame:
    found = frame(*steps).reindex(columns=["stage", "task_type", *STATES]).fillna(0)
    return found.assign(total=found[list(STATES)].sum(axis="columns"))


def eta(**columns: object) -> pd.DataFrame:
    hours = {"p50": 2, "p80": 3, "p95": 5, "lower": 1, "upper": 4}
    row = {f"clear_{name}_seconds": 3600.0 * n for name, n in hours.items()}
    row |= {"task_type": "align", "status": "draining", "waiting": 50}
    return frame(row | {"clear_p50_at": NOW + pd.Timedelta("2h")} | columns)


def flow() -> pd.DataFrame:
    """Of two steps, at which seven were at first."""
    counts = {"align": ([5, 2, 0, 1], [1, 3, 2, 0]), "clip": ([0, 1, 0, 0], [0, 0, 0, 1])}
    found = []
    for task, (arrivals, departures) in counts.items():
        step = pd.DataFrame({"task_type": task, "arrivals": arrivals, "departures": departures})
        gained = step["arrivals"] - step["departures"]
        times = pd.date_range(NOW, periods=4, freq="1h")
        found.append(step.assign(depth=7 + gained.cumsum() - gained, bucket=times))
    return pd.concat(found).sort_values("bucket", kind="stable")


def test_backlog_stacks_only_the_states_that_occur_and_shows_totals_from_the_top() -> None:
    first = {"task_type": "z", "missing": 1200, "stuck": 2}
    figure = charts.backlog_by_state(
        backlog(first, {"task_type": "a", "pending": 3, "blocked": 1}, {"task_type": "m"})
    )
    *bars, totals = figure.data
    assert {bar.name: list(bar.x) for bar in bars} == {
        **{"missing": [1200, 0, 0], "pending": [0, 3, 0], "stuck": [2, 0, 0]},
        "blocked": [0, 1, 0],
    }
    assert [text.strip() for text in totals.text] == ["1,202", "4", "0"]
    assert [label.split("<br>")[0] for label in totals.y] == ["z", "a", "m"]
    assert list(figure.layout.yaxis.range) == [2.5, -0.5]


def test_a_colour_stands_out_and_has_one_meaning() -> None:
    assert tuple(charts.STYLES) == STATES
    assert len(set(charts.STYLES.values())) == len(STATES)
    colours = {colour for colour, _ in charts.STYLES.values()}
    others = {charts.DASHBOARD, charts.TIME}
    assert not colours & others
    for ground in ("#ffffff", "#15181c", "#111111", "#212121"):  # pages, JupyterLab; light, dark
        for colour in colours | others:
            assert contrast(colour, ground) >= 3, colour
    past = pd.DataFrame({"level": [0.5, 0.8], "held": pd.array([True, False], dtype="boolean")})
    for figure in (
        charts.depth_over_time(flow()),
        charts.cumulative_flow(flow().query("task_type == 'align'")),
        *(charts.time_to_clear(eta()), charts.drain_fan(eta()), charts.calibration(past)),
    ):
        assert not {colour for colour in colours if colour in figure.to_json()}


def test_markup_in_names_is_escaped() -> None:
    for name in ("<b>x</b>", "<a href='javascript:alert(1)'>x</a>", "a&lt;b"):
        step = {"stage": name, "task_type": name}
        for figure in (
            charts.backlog_by_state(backlog({**step, "pending": 1})),
            charts.hidden_vs_visible(frame({**step, "eligible": 1, "visible": 1, "hidden": 0})),
            charts.time_to_clear(eta(**step)),
            charts.depth_over_time(flow().assign(task_type=name)),
        ):
            assert json.dumps(name)[1:-1] not in figure.to_json()


def test_what_has_nothing_to_draw_says_so_instead() -> None:
    none = pd.DataFrame({"level": [], "held": pd.array([], dtype="boolean")})
    unknown = eta(status="insufficient_history", clear_p50_seconds=NAN)
    hours = pd.DataFrame({"bucket": pd.date_range(NOW, periods=3, freq="1h"), "completions": 0})
    audit = frame({"eligible": 0, "visible": 0, "hidden": 0})
    for figure, words in (
        (charts.backlog_by_state(backlog({}).assign(stage=None)), "Nothing is in the queue"),
        (charts.hidden_vs_visible(audit), "show nothing"),
        (charts.time_to_clear(eta(status="empty", clear_p50_seconds=0.0)), "Nothing waits"),
        (charts.time_to_clear(unknown), "No step has a range: insufficient history."),
        (charts.drain_fan(unknown), "align: insufficient history"),
        (charts.cumulative_flow(flow().iloc[:0]), "Nothing was at this step"),
        (charts.depth_over_time(flow().iloc[:0]), "Nothing was in the queue"),
        (charts.throughput_by_hour(hours), "Nothing was completed"),
        (charts.calibration(none), "too little history"),
    ):
        assert not figure.data
        assert words in figure.layout.meta


def test_time_to_clear_shows_ranges_in_hours_and_says_where_there_is_none() -> None:
    without = eta(task_type="<b>clip", status="too_little", clear_p50_seconds=NAN)
    empty = eta(task_type="segment", status="empty", clear_p50_seconds=0.0)
    figure = charts.time_to_clear(pd.concat([eta(), without, empty]))
    first, second, words = figure.data
    assert [(list(bar.base), list(bar.x)) for bar in (first, second)] == [([1], [1]), ([2], [2])]
    assert [word.strip() for word in words.text] == ["too little", "empty"]
    assert [label.split("<br>")[0] for label in words.y] == ["&lt;b&gt;clip", "segment"]
    assert list(figure.layout.yaxis.categoryarray) == [*first.y, *words.y]


def test_throughput_by_hour_averages_whole_hours_of_the_zones_weekdays() -> None:
    hours = pd.date_range("2026-11-09", periods=14 * 24 + 1, freq="1h", tz="Asia/Kolkata")
    found = pd.DataFrame({"bucket": hours.tz_convert("UTC"), "completions": 0})
    found.loc[[9, 9 + 7 * 24], "completions"] = 3, 4
    found.loc[len(found) - 1, "completions"] = 99  # the hour that is not over
    both = pd.concat([found, found], ignore_index=True)  # of two steps
    (heat,) = charts.throughput_by_hour(both, "Asia/Kolkata").data
    cells = pd.DataFrame(heat.z, index=heat.y, columns=heat.x)
    assert cells.shape == (7, 24)
    assert cells.loc["Mon", "09"] == cells.to_numpy().sum() == 7


def test_depth_is_a_chart_for_each_step_on_one_scale_and_parts_arrivals_from_departures() -> None:
    figure = charts.depth_over_time(flow(), BERLIN)
    align, clip = figure.data
    assert (align.name, clip.name) == ("align", "clip")
    assert (list(align.y), list(clip.y)) == ([7, 11, 10, 8], [7, 7, 8, 8])
    assert align.x[0] == "2026-11-22T11:00:00"
    assert [list(figure.layout[axis].range) for axis in ("yaxis", "yaxis2")] == [[0, 11]] * 2
    departures, arrivals, there = charts.cumulative_flow(flow().query("task_type == 'align'")).data
    assert list(arrivals.y) == [7, 12, 14, 14]
    gap = [a - d for a, d in zip(arrivals.y, departures.y, strict=True)]
    assert gap == list(there.y) == list(align.y)
    assert there.yaxis != arrivals.yaxis


def test_the_fan_falls_from_now_to_zero_at_each_quantile() -> None:
    fan, median, sure = charts.drain_fan(eta(), BERLIN).data
    assert [time[11:13] for time in fan.x] == ["11", "15", "12"]
    assert list(fan.y) == [50, 0, 0]
    assert (median.x[1], sure.x[1]) == ("2026-11-22T13:00:00", "2026-11-22T16:00:00")
    assert list(median.y) == list(sure.y) == [50, 0]
    assert fan.meta == "none of 50 left between 2026-11-22 12:00 and 2026-11-22 15:00"


def test_calibration_counts_only_ranges_that_were_given() -> None:
    held = pd.array([True, False, None, True, True, True], dtype="boolean")
    past = pd.DataFrame({"level": [0.5, 0.5, 0.5, 0.9, 0.9, 0.9], "held": held})
    diagonal, points = charts.calibration(past).data
    assert list(diagonal.x) == list(diagonal.y)
    assert (list(points.x), list(points.y)) == ([0.5, 0.9], [0.5, 1.0])
    assert list(points.customdata) == ["1 of 2", "3 of 3"]
