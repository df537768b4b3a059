"""Values and frames as text for people and programs."""

import csv
import io
import json
from typing import Any

import pandas as pd

from queue_insights import formats

FIRST: dict[str, Any] = {
    **{"name": "a", "count": 3, "attempts": 2, "share": 0.5, "wait_seconds": 7500.0, "flag": True},
    **{"at": "2026-03-01T10:00:00.250000Z", "error": {"code": [1, "é"]}},
}
SECOND = {**dict.fromkeys(FIRST), "count": 0}
# Every dtype that a read gives, with a value and without.
FRAME = pd.DataFrame(
    {
        "name": pd.Series(["a", None], dtype="str"),
        "count": pd.Series([3, 0], dtype="int64"),
        "attempts": pd.Series([2, None], dtype="Int64"),
        "share": pd.Series([0.5, float("nan")], dtype="float64"),
        "wait_seconds": pd.Series([7500.0, float("inf")], dtype="float64"),
        "flag": pd.Series([True, None], dtype="boolean"),
        "at": pd.to_datetime(pd.Series(["2026-03-01T12:00:00.25+02:00", None]), utc=True),
        "error": pd.Series([{"code": [1, "é"]}, None], dtype="object"),
    }
)


def read_back(frame: pd.DataFrame) -> list[list[str]]:
    return list(csv.reader(io.StringIO(formats.to_csv(frame), newline="")))


def test_json_is_a_list_of_records_with_iso_times_and_nulls() -> None:
    def no_json(name: str) -> None:
        raise AssertionError(name)

    assert json.loads(formats.to_json(FRAME), parse_constant=no_json) == [FIRST, SECOND]
    empty = FRAME.iloc[:0]
    assert json.loads(formats.to_json(empty)) == []
    assert formats.to_csv(empty) == "name,count,attempts,share,wait_seconds,flag,at,error\n"
    assert formats.to_table(empty).splitlines()[1] == "(none)"


def test_text_that_a_spreadsheet_would_run_is_disarmed_in_csv_only() -> None:
    for text in ('=HYPERLINK("x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
        frame = pd.DataFrame({"title": [text], "n": [-1]})
        assert read_back(frame)[1] == [f"'{text}", "-1"]
        assert json.loads(formats.to_json(frame)) == [{"title": text, "n": -1}]
    # A carriage return that began a row of its own could begin it with a formula.
    for text in ("a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", "'", " a ", "é 日本 🎵"):
        assert read_back(pd.DataFrame({"t": [text, None]}))[1] == [text]


def test_a_table_shows_control_and_direction_characters_and_cuts_wide_cells() -> None:
    for text, shown in {
        "two\nlines\r\tand \x00 tab": "two\\nlines\\r\\tand \\x00 tab",
        "\x1b[31mred\x1b]0;title\x07": "\\x1b[31mred\\x1b]0;title\\x07",
        "abc\u202edef\u2066": "abc\\u202edef\\u2066",
        "x" * 200: "x" * 47 + "…",
    }.items():
        assert formats.to_table(pd.DataFrame({"title": [text]})).splitlines()[1] == shown
