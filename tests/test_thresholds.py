"""Thresholds: what they mean, and what is no threshold."""

from typing import Any

from queue_insights.report import thresholds

FIGURES = {"hidden": 50, "stuck": 5, "oldest_waiting_seconds": 7201.0, "eta_seconds": None}
STEPS = {
    "name": "by_stage",
    "columns": ["stage", "task_type", "stuck", "oldest_waiting_seconds", "verdict"],
    "rows": [
        ["audio_ready", "align", 0, None, "hidden"],
        ["aligned", "translate", 7, 90.0, "visible"],
        ["enhanced", "clip", 9, 30.0, "visible"],
    ],
}


def breached(*texts: str) -> list[dict[str, Any]]:
    return thresholds.breaches([*map(thresholds.parse, texts)], FIGURES, [STEPS])


def test_a_threshold_is_breached_where_it_holds() -> None:
    for holds, does_not in {
        **{"hidden > 0": "hidden > 50", "hidden >= 50": "hidden >= 51"},
        **{"hidden < 51": "hidden < 50", "hidden <= 50": "hidden <= 49"},
        **{"hidden == 50": "hidden == 49", "hidden != 49": "hidden != 50"},
        **{"  hidden>0  ": "hidden < -1.5", "by_stage.stuck > 8": "by_stage.stuck > 9"},
        "oldest_waiting > 2h": "oldest_waiting > 2h1m",
        "oldest_waiting_seconds > 7200": "oldest_waiting_seconds > 7201.5",
        "by_stage.oldest_waiting > 1m": "eta > 3d",
    }.items():
        assert breached(holds)
        assert not breached(does_not)


def test_a_breach_says_which_value_and_of_a_table_where_it_is_worst() -> None:
    worst = breached("by_stage.stuck > 5", "by_stage.oldest_waiting < 2m", "oldest_waiting > 2h")
    assert [thresholds.describe(breach) for breach in worst] == [
        "by_stage.stuck > 5: 9 at clip",
        "by_stage.oldest_waiting < 2m: 30s at clip",
        "oldest_waiting > 2h: 2h 00m",
    ]
    stuck = {"threshold": "by_stage.stuck > 5", "figure": "by_stage.stuck"}
    assert worst[0] == {**stuck, "value": 9, "where": "clip"}
