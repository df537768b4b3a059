"""Parameters are checked against the notebook's cell, strictly, and nothing in it is run; what
thresholds mean."""

from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from queue_insights.errors import InputError
from queue_insights.report import parameters, thresholds

CELL = """
"A text in which = nothing is assigned."
count: int = 3
label = "x"
other = None  # type: Optional[str] as papermill has it, such as x = 1
names: list[str] = [
    "a >= # 1",
]
"""


def declared(source: str) -> dict[str, parameters.Parameter]:
    cell = new_code_cell(source, metadata={"tags": ["parameters"]})
    return parameters.declared(new_notebook(cells=[new_code_cell("x = 1"), cell]), "mine")


def test_names_types_and_defaults_are_those_of_the_tagged_cell() -> None:
    assert {p.name: (p.annotation, p.default) for p in declared(CELL).values()} == {
        **{"count": ("int", 3), "label": ("str", "x"), "other": ("Optional[str]", None)},
        "names": ("list[str]", ["a >= # 1"]),
    }


def test_credentials_are_refused_and_not_repeated() -> None:
    texts = ["postgresql://me:hunter2@db/x", "postgresql://db/x?user=me&password=hunter2"]
    texts += ["host=db password=hunter2", "host=db\npassword = hunter2"]
    listed: list[dict[str, Any]] = [{"names": ["fine", "https://me:hunter2@example.invalid"]}]
    named = [{"db_password": "hunter2"}, {"database_url": "hunter2"}]
    for values in [*({"label": text} for text in texts), *listed, *named]:
        with pytest.raises(InputError, match="looks like a credential") as refused:
            parameters.validated(declared(CELL), values, [], "mine", "-f mine.yaml")
        assert "hunter2" not in str(refused.value)


def test_a_cell_of_more_than_literals_is_an_error_and_is_not_run() -> None:
    for source in (
        *("x = open('f')", "import os", "def f(): pass", "x =", "x = y = 1", "x = (1, 2)"),
        *("x: Path = 1", "x: int = 'a'", "x: list[int, str] = []", "x = 1  # type: exit()"),
    ):
        with pytest.raises(InputError, match="notebook 'mine'"):
            declared(source)


def test_a_breach_says_which_value_and_of_a_table_where_it_is_worst() -> None:
    figures = {"hidden": 50, "oldest_waiting_seconds": 7201.0, "eta_seconds": None}
    steps = {"name": "by_stage", "columns": ["task_type", "stuck", "oldest_waiting_seconds"]}
    steps["rows"] = [["align", 0, None], ["translate", 7, 90.0], ["clip", 9, 30.0]]

    def said(*texts: str) -> list[str]:
        limits = [*map(thresholds.parse, texts)]
        return [*map(thresholds.describe, thresholds.breaches(limits, figures, [steps]))]

    assert said("by_stage.stuck > 5", "by_stage.oldest_waiting < 2m", "hidden>0") == [
        "by_stage.stuck > 5: 9 at clip",
        "by_stage.oldest_waiting < 2m: 30s at clip",
        "hidden>0: 50",
    ]
    held = "oldest_waiting > 2h: 2h 00m", "oldest_waiting_seconds > 7200: 2h 00m"
    assert said(*(text.split(": ")[0] for text in held)) == [*held]
    assert said("oldest_waiting > 2h1m", "oldest_waiting_seconds > 7201.5", "eta > 3d") == []
    assert said("by_stage.stuck > 9", "by_stage.oldest_waiting > 2m", "hidden < -1.5") == []
