"""Charts say what the frame says, in the clocks of the zone, and names in them are text."""

import json

import pandas as pd
import pytest

from queue_insights import charts
from queue_insights.reads import STATES

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
    steps = {"align": ([5, 2, 0, 1], [1, 3, 2, 0]), "clip": ([0, 1, 0, 0], [0, 0, 0, 1])}
    found = [
        pd.DataFrame({"arrivals": a, "departures": d}).assign(task_type=task)
        for task, (a, d) in steps.items()
    ]
    for step in found:
        gained = step["arrivals"] - step["departures"]
        step["depth"] = 7 + gained.cumsum() - gained
        step["bucket"] = pd.date_range(NOW, periods=4, freq="1h")
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
    assert figure.layout.yaxis.autorange == "reversed"


def test_every_state_and_step_looks_different_from_all_others() -> None:
    assert tuple(charts.STYLES) == STATES
    assert len(set(charts.STYLES.values())) == len(STATES)
    steps = pd.DataFrame({"bucket": NOW, "task_type": [f"t{i}" for i in range(9)], "depth": 1})
    bands = charts.depth_over_time(steps).data
    assert len({(band.fillcolor, band.fillpattern.shape) for band in bands}) == 9


def test_hidden_work_and_what_dashboards_show_stand_side_by_side() -> None:
    audit = frame(
        {"eligible": 50, "visible": 0, "hidden": 50, "orphans": 0},
        {"eligible": 7, "visible": 9, "hidden": 2, "orphans": 5},
    )
    figure = charts.hidden_vs_visible(audit)
    assert {(bar.name, bar.offsetgroup): list(bar.x) for bar in figure.data} == {
        ("hidden", "truth"): [50, 2],
        ("waits with a task row", "truth"): [0, 5],
        ("dashboards show", "dashboard"): [0, 9],
    }


@pytest.mark.parametrize("name", ["<b>x</b>", "<a href='javascript:alert(1)'>x</a>", "a&lt;b"])
def test_markup_in_names_is_escaped(name: str) -> None:
    step = {"stage": name, "task_type": name}
    for figure in (
        charts.backlog_by_state(backlog({**step, "pending": 1})),
        charts.hidden_vs_visible(frame({**step, "eligible": 1, "visible": 1, "hidden": 0})),
        charts.time_to_clear(eta(**step)),
        charts.depth_over_time(flow().assign(task_type=name)),
        charts.drain_fan(eta(task_type=name, clear_p50_seconds=NAN)),
    ):
        assert json.dumps(name)[1:-1] not in figure.to_json()


def test_nothing_to_show_still_makes_charts() -> None:
    figure = charts.backlog_by_state(backlog({}).assign(stage=None))
    assert [(trace.type, trace.y) for trace in figure.data] == [("scatter", ("t",))]
    none = pd.DataFrame({"level": [], "held": pd.array([], dtype="boolean")})
    assert len(charts.calibration(none).data) == 2
    assert charts.cumulative_flow(flow().iloc[:0]).data[0].y is not None
    assert not charts.depth_over_time(flow().iloc[:0]).data


def test_time_to_clear_shows_ranges_in_hours_and_says_where_there_is_none() -> None:
    without = eta(task_type="<b>clip", status="too_little", clear_p50_seconds=NAN)
    empty = eta(task_type="segment", status="empty", clear_p50_seconds=0.0)
    figure = charts.time_to_clear(pd.concat([eta(), without, empty]))
    ranges, median, words = figure.data
    assert (list(ranges.base), list(ranges.x), list(median.x)) == ([1.0], [3.0], [2.0])
    assert [word.strip() for word in words.text] == ["too little", "empty"]
    assert [label.split("<br>")[0] for label in words.y] == ["&lt;b&gt;clip", "segment"]
    assert list(figure.layout.yaxis.categoryarray) == [*ranges.y, *words.y]


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


def test_depth_is_stacked_in_pipeline_order_and_parts_arrivals_from_departures() -> None:
    align, clip = charts.depth_over_time(flow(), BERLIN).data
    assert (align.name, clip.name, align.stackgroup) == ("align", "clip", clip.stackgroup)
    assert (list(align.y), list(clip.y)) == ([7, 11, 10, 8], [7, 7, 8, 8])
    assert align.x[0] == "2026-11-22T11:00:00"
    departures, arrivals = charts.cumulative_flow(flow().query("task_type == 'align'")).data
    assert list(arrivals.y) == [7, 12, 14, 14]
    assert [a - d for a, d in zip(arrivals.y, departures.y, strict=True)] == list(align.y)


def test_the_fan_falls_from_now_to_zero_at_each_quantile_or_says_why_not() -> None:
    fan, median, sure = charts.drain_fan(eta(), BERLIN).data
    assert [time[11:13] for time in fan.x] == ["11", "15", "12"]
    assert list(fan.y) == [50, 0, 0]
    assert (median.x[1], sure.x[1]) == ("2026-11-22T13:00:00", "2026-11-22T16:00:00")
    assert list(median.y) == list(sure.y) == [50, 0]
    for status, seconds in (("too_little", NAN), ("empty", 0.0)):
        figure = charts.drain_fan(eta(status=status, clear_p50_seconds=seconds))
        assert not figure.data
        (words,) = figure.layout.annotations
        assert words.text == f"align: {status.replace('_', ' ')}"


def test_calibration_counts_only_ranges_that_were_given() -> None:
    held = pd.array([True, False, None, True, True, True], dtype="boolean")
    past = pd.DataFrame({"level": [0.5, 0.5, 0.5, 0.9, 0.9, 0.9], "held": held})
    diagonal, points = charts.calibration(past).data
    assert list(diagonal.x) == list(diagonal.y)
    assert (list(points.x), list(points.y)) == ([0.5, 0.9], [0.5, 1.0])
    assert list(points.customdata) == ["1 of 2", "3 of 3"]
