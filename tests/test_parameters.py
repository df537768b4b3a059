"""Parameters are checked against the notebook's cell, strictly, and nothing in it is run; what
thresholds mean."""

from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from queue_insights.errors import InputError
from queue_insights.report import parameters, thresholds

CELL = '''\
"""A text in which = nothing is assigned."""
count: int = 3  # a comment, >= 1
flag: bool = False
ratio: float = 0.5
task: str | None = None
other = None  # type: Optional[str] as papermill has it, such as x = 1
names: list[str] = [
    "a >= # 1",
]
limits: dict = {}
label = "x"
anything = None
'''


def declared(source: str) -> dict[str, parameters.Parameter]:
    cell = new_code_cell(source, metadata={"tags": ["parameters"]})
    return parameters.declared(new_notebook(cells=[new_code_cell("x = 1"), cell]), "mine")


def check(values: dict[str, Any] | None = None, **given: str) -> dict[str, Any]:
    known = declared(CELL)
    return parameters.validated(known, values or {}, given.items(), "mine", "-f mine.yaml")


def test_names_types_and_defaults_are_those_of_the_tagged_cell() -> None:
    assert {p.name: (p.annotation, p.default) for p in declared(CELL).values()} == {
        **{"count": ("int", 3), "flag": ("bool", False), "ratio": ("float", 0.5)},
        **{"task": ("Optional[str]", None), "other": ("Optional[str]", None)},
        **{"names": ("list[str]", ["a >= # 1"]), "limits": ("dict", {}), "label": ("str", "x")},
        "anything": ("str | int | float | bool | None", None),
    }


def test_credentials_are_refused_and_not_repeated() -> None:
    texts = ["postgresql://me:hunter2@db/x", "postgresql://db/x?user=me&password=hunter2"]
    texts += ["host=db password=hunter2", "host=db\npassword = hunter2"]
    listed: list[dict[str, Any]] = [{"names": ["fine", "https://me:hunter2@example.invalid"]}]
    named = [{"db_password": "hunter2"}, {"database_url": "hunter2"}]
    for values in [*({"label": text} for text in texts), *listed, *named]:
        with pytest.raises(InputError, match="looks like a credential") as refused:
            check(values)
        assert "hunter2" not in str(refused.value)


def test_a_cell_of_more_than_literals_is_an_error_and_is_not_run() -> None:
    for source in (
        *("x = open('f')", "import os", "def f(): pass", "x =", "x = y = 1", "x = (1, 2)"),
        *("x: Path = 1", "x: int = 'a'", "x: list[int, str] = []", "x = 1  # type: exit()"),
    ):
        with pytest.raises(InputError, match="notebook 'mine'"):
            declared(source)


def test_a_notebook_without_the_cell_takes_no_parameters() -> None:
    assert parameters.declared(new_notebook(), "mine") == {}
    with pytest.raises(InputError, match="unknown parameter 'a': mine takes none"):
        parameters.validated({}, {"a": 1}, [], "mine", "-f x")


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
