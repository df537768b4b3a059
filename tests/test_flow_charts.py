"""Charts of flow and forecasts say what the frame says, in the clocks of the zone."""

import json

import pandas as pd
import pytest

from queue_insights import flow_charts, summary

NOW = pd.Timestamp("2026-11-22 10:00", tz="UTC")


def eta(**columns: object) -> pd.DataFrame:
    hours = {"p50": 2, "p80": 3, "p95": 5, "lower": 1, "upper": 4}
    row: dict[str, object] = {"task_type": "align", "status": "draining", "waiting": 50}
    row |= {f"clear_{name}_seconds": 3600.0 * n for name, n in hours.items()}
    row["clear_p50_at"] = NOW + pd.Timedelta("2h")
    return pd.DataFrame([row | columns])


def flow() -> pd.DataFrame:
    buckets = pd.date_range(NOW, periods=4, freq="1h")
    steps = {"align": ([5, 2, 0, 1], [1, 3, 2, 0]), "clip": ([0, 1, 0, 0], [0, 0, 0, 1])}
    records = []
    for task, (came, gone) in steps.items():
        depth = 7
        for bucket, arrivals, departures in zip(buckets, came, gone, strict=True):
            records.append((bucket, task, arrivals, departures, depth))
            depth += arrivals - departures
    columns = ["bucket", "task_type", "arrivals", "departures", "depth"]
    return pd.DataFrame(records, columns=columns).sort_values("bucket", kind="stable")


def test_throughput_by_hour_averages_whole_hours_of_the_zones_weekdays() -> None:
    hours = pd.date_range("2026-11-09", periods=14 * 24 + 1, freq="1h", tz="Asia/Kolkata")
    frame = pd.DataFrame({"bucket": hours.tz_convert("UTC"), "completions": 0})
    frame.loc[frame["bucket"].isin(hours[[9, 9 + 7 * 24]].tz_convert("UTC")), "completions"] = 3, 4
    frame.loc[len(frame) - 1, "completions"] = 99  # the hour that is not over
    both = pd.concat([frame, frame], ignore_index=True)  # of two steps
    (heat,) = flow_charts.throughput_by_hour(both, "Asia/Kolkata").data
    cells = pd.DataFrame(heat.z, index=heat.y, columns=heat.x)
    assert cells.loc["Mon", "09"] == 7
    assert cells.size == 7 * 24
    assert cells.to_numpy().sum() == 7


def test_an_hour_that_never_was_has_no_colour() -> None:
    hours = pd.date_range("2026-11-09", periods=3, freq="1h", tz="UTC")
    frame = pd.DataFrame({"bucket": hours, "completions": [1, 2, 3]})
    (heat,) = flow_charts.throughput_by_hour(frame).data
    assert list(heat.z[0][:3]) == [1, 2, None]
    (heat,) = flow_charts.throughput_by_hour(frame.assign(completions=0)).data
    assert (heat.zmin, heat.zmax) == (0, 1)


def test_depth_is_stacked_in_pipeline_order_and_local_time() -> None:
    align, clip = flow_charts.depth_over_time(flow(), "Europe/Berlin").data
    assert (align.name, clip.name) == ("align", "clip")
    assert align.stackgroup == clip.stackgroup
    assert (list(align.y), list(clip.y)) == ([7, 11, 10, 8], [7, 7, 8, 8])
    assert align.x[0] == "2026-11-22T11:00:00"


def test_more_steps_than_colours_differ_in_pattern() -> None:
    frame = pd.DataFrame(
        [(NOW, f"t{i}", 1) for i in range(9)], columns=["bucket", "task_type", "depth"]
    )
    bands = flow_charts.depth_over_time(frame).data
    assert len({(band.fillcolor, band.fillpattern.shape) for band in bands}) == 9


def test_arrivals_and_departures_are_apart_by_the_depth() -> None:
    align = flow().query("task_type == 'align'")
    departures, arrivals = flow_charts.cumulative_flow(align).data
    assert list(arrivals.y) == [7, 12, 14, 14]
    assert [a - d for a, d in zip(arrivals.y, departures.y, strict=True)] == align["depth"].tolist()


def test_the_fan_falls_from_now_to_zero_at_each_quantile() -> None:
    fan, median, sure = flow_charts.drain_fan(eta(), "Europe/Berlin").data
    assert list(zip(fan.x, fan.y, strict=True)) == [
        ("2026-11-22T11:00:00", 50),
        ("2026-11-22T15:00:00", 0),
        ("2026-11-22T12:00:00", 0),
        ("2026-11-22T11:00:00", 50),
    ]
    assert (median.x[1], sure.x[1]) == ("2026-11-22T13:00:00", "2026-11-22T16:00:00")
    assert list(median.y) == list(sure.y) == [50, 0]


def test_without_a_range_the_fan_says_why() -> None:
    figure = flow_charts.drain_fan(
        eta(status="insufficient_history", clear_p50_seconds=float("nan"), task_type="<b>x")
    )
    assert not figure.data
    assert [a.text for a in figure.layout.annotations] == ["&lt;b&gt;x: insufficient history"]


def test_of_a_step_with_nothing_to_do_the_fan_says_so() -> None:
    nothing = dict.fromkeys([f"clear_{name}_seconds" for name in ("p50", "p95")], 0.0)
    figure = flow_charts.drain_fan(eta(status="empty", waiting=0, **nothing))
    assert [a.text for a in figure.layout.annotations] == ["align: empty"]


def test_calibration_counts_only_ranges_that_were_given() -> None:
    held = pd.array([True, False, None, True, True, True], dtype="boolean")
    frame = pd.DataFrame({"level": [0.5, 0.5, 0.5, 0.9, 0.9, 0.9], "held": held})
    diagonal, points = flow_charts.calibration(frame).data
    assert list(diagonal.x) == list(diagonal.y)
    assert (list(points.x), list(points.y)) == ([0.5, 0.9], [0.5, 1.0])
    assert list(points.customdata) == ["1 of 2", "3 of 3"]


def test_nothing_to_show_still_makes_charts() -> None:
    none = pd.DataFrame({"level": [], "held": pd.array([], dtype="boolean")})
    assert len(flow_charts.calibration(none).data) == 2
    empty = flow().iloc[:0]
    assert flow_charts.cumulative_flow(empty).data[0].y is not None
    assert not flow_charts.depth_over_time(empty).data


@pytest.mark.parametrize("name", ["<b>x</b>", "<a href='javascript:alert(1)'>x</a>"])
def test_markup_in_names_is_escaped(name: str) -> None:
    drawing = json.loads(flow_charts.depth_over_time(flow().assign(task_type=name)).to_json())
    assert name not in drawing["data"][0]["name"] + drawing["data"][0]["hovertemplate"]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([(97, 120)], "Of the last 120 such ranges, 97 held: 81%, where 80% should."),
        ([(1, 2), (3, 4)], "Of the last 6 such ranges, 4 held: 67%, where 80% should."),
        ([(1, 1)], "Of the one such range so far, 1 held: 100%, where 80% should."),
        ([(0, 0)], "No such range could be checked against what happened yet."),
    ],
)
def test_the_track_record_is_said_in_words(records: list[tuple[int, int]], words: str) -> None:
    assert summary.track_record(pd.DataFrame(records, columns=["held", "given"])) == words
