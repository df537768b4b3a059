"""Charts say what the frame says, and names in them are text."""

import json

import pandas as pd
import pytest

from queue_insights import charts
from queue_insights.states import STATES


def backlog(*steps: dict[str, object]) -> pd.DataFrame:
    rows = [{"stage": "s", "task_type": "t", **dict.fromkeys(STATES, 0), **step} for step in steps]
    for row in rows:
        row["tracks"] = sum(int(row[state]) for state in STATES)
    return pd.DataFrame(rows)


def audit(*steps: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{"stage": "s", "task_type": "t", **step} for step in steps])


def test_backlog_stacks_only_the_states_that_occur_in_their_order() -> None:
    frame = backlog(
        {"task_type": "align", "missing": 50, "stuck": 2},
        {"task_type": "clip", "pending": 3},
    )
    bars = [trace for trace in charts.backlog_by_state(frame).data if trace.type == "bar"]
    assert [(bar.name, list(bar.x)) for bar in bars] == [
        ("missing", [50, 0]),
        ("pending", [0, 3]),
        ("stuck", [2, 0]),
    ]


def test_backlog_shows_totals_and_keeps_pipeline_order_from_the_top() -> None:
    steps = [{"task_type": name, "stage": "at", "pending": 1200} for name in ("z", "a", "m")]
    figure = charts.backlog_by_state(backlog(*steps))
    (totals,) = [trace for trace in figure.data if trace.type == "scatter"]
    assert [text.strip() for text in totals.text] == ["1,200"] * 3
    assert [label.split("<br>")[0] for label in totals.y] == ["z", "a", "m"]
    assert figure.layout.yaxis.autorange == "reversed"


def test_every_state_has_a_style_that_differs_from_all_others() -> None:
    assert list(charts.STYLES) == list(STATES)
    assert len(set(charts.STYLES.values())) == len(STATES)


def test_hidden_work_and_what_dashboards_show_stand_side_by_side() -> None:
    frame = audit(
        {"task_type": "align", "eligible": 50, "visible": 0, "hidden": 50, "orphans": 0},
        {"task_type": "clip", "eligible": 7, "visible": 9, "hidden": 2, "orphans": 5},
    )
    figure = charts.hidden_vs_visible(frame)
    assert {(bar.name, bar.offsetgroup): list(bar.x) for bar in figure.data} == {
        ("hidden", "truth"): [50, 2],
        ("waits with a task row", "truth"): [0, 5],
        ("dashboards show", "dashboard"): [0, 9],
    }


@pytest.mark.parametrize("name", ["<b>x</b>", "<a href='javascript:alert(1)'>x</a>", "a&lt;b"])
def test_markup_in_names_is_escaped(name: str) -> None:
    step = {"stage": name, "task_type": name, "eligible": 1, "visible": 1, "hidden": 0}
    for figure in (
        charts.backlog_by_state(backlog({"stage": name, "task_type": name, "pending": 1})),
        charts.hidden_vs_visible(audit(step)),
    ):
        assert name not in json.loads(figure.to_json())["data"][0]["y"][0]


def test_an_empty_queue_still_makes_charts() -> None:
    empty = backlog({"task_type": "align"})
    assert [trace.type for trace in charts.backlog_by_state(empty).data] == ["scatter"]
    step = {"eligible": 0, "visible": 0, "hidden": 0}
    assert len(charts.hidden_vs_visible(audit(step)).data) == 3


def test_time_to_clear_shows_ranges_in_hours_and_says_where_there_is_none() -> None:
    eta = pd.DataFrame(
        {
            "stage": ["a", "b", "c"],
            "task_type": ["align", "<b>clip", "segment"],
            "status": ["draining", "insufficient_history", "empty"],
            "clear_lower_seconds": [3600.0, None, 0.0],
            "clear_p50_seconds": [7200.0, None, 0.0],
            "clear_upper_seconds": [14400.0, None, 0.0],
        }
    )
    figure = charts.time_to_clear(eta)
    ranges, median, words = figure.data
    assert (list(ranges.base), list(ranges.x), list(median.x)) == ([1.0], [3.0], [2.0])
    assert [word.strip() for word in words.text] == ["insufficient history", "empty"]
    assert [label.split("<br>")[0] for label in words.y] == ["&lt;b&gt;clip", "segment"]
    assert list(figure.layout.yaxis.categoryarray) == [*ranges.y, *words.y]


def test_week_over_week_sets_the_same_weekdays_side_by_side() -> None:
    days = pd.date_range("2026-11-08", "2026-11-22", tz="Europe/Berlin").tz_convert("UTC")
    rows = [(day, task, n) for n, day in enumerate(days) for task in ("align", "clip")]
    throughput = pd.DataFrame(rows, columns=["bucket", "task_type", "completions"])
    last, this = charts.week_over_week(throughput, "Europe/Berlin").data
    assert list(this.y) == [2 * n for n in range(8, 15)]
    assert list(last.y) == [2 * n for n in range(1, 8)]
    assert list(last.x) == list(this.x) == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert this.customdata[-1] == "Sun 2026-11-22"
    assert last.customdata[-1] == "Sun 2026-11-15"
