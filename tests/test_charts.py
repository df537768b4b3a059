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
