"""What notebooks show: the same thing as HTML for people, as text, and as data; never as markup."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from queue_insights import charts, formats, show, summary
from queue_insights.errors import InputError

FRAME = pd.DataFrame(
    {
        "title": ["<b>&", "x" * 300, None],
        "arrived_at": pd.to_datetime(["2026-07-01T10:00:00Z", None, "2026-01-01T10:00:00Z"]),
        "age_seconds": [7500.0, float("nan"), 30.0],
        "attempts": pd.array([1, None, 12345], dtype="Int64"),
        "nothing": [None, None, None],
    }
)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The bundles that were displayed."""
    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "IPython.display.display", lambda bundle, raw: bundles.append(bundle) if raw else None
    )
    return bundles


def test_a_table_is_data_in_full_and_html_for_people(shown: list[dict[str, Any]]) -> None:
    show.table("missing", FRAME, "A <caption>", timezone="Europe/Berlin")
    (bundle,) = shown
    data, html = bundle[show.MIME], bundle["text/html"]
    assert (data["kind"], data["name"]) == ("table", "missing")
    assert data["columns"] == list(FRAME)
    assert data["rows"][0] == ["<b>&", "2026-07-01T10:00:00Z", 7500.0, 1, None]
    assert data["rows"][1][0] == "x" * 300
    texts = ["A &lt;caption&gt;", "&lt;b&gt;&amp;", "2h 05m", "12,345", "x" * 199 + "…"]
    texts += ["arrived at (Europe/Berlin)", "2026-07-01 12:00:00", "2026-01-01 11:00:00"]
    assert [text for text in texts if text not in html] == []
    assert "x" * 200 not in html
    assert "nothing" not in html
    # What to sort numbers by.
    for value in (7500.0, 12345):
        assert f'data-v="{value}"' in html
    assert html.count('data-v=""') == 2
    show.table("missing", FRAME.iloc[:0])
    assert "None." in shown[1]["text/html"]


def test_a_list_is_saved_whole_or_not_at_all_and_its_first_rows_are_shown(
    shown: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pages = [FRAME, FRAME.iloc[:0], FRAME]
    all_rows = pd.concat(pages, ignore_index=True)
    for folder in (None, str(tmp_path)):
        if folder:
            monkeypatch.setenv(show.TABLES, folder)
        first = show.save("missing", iter(pages), limit=4)
        pd.testing.assert_frame_equal(first, all_rows.head(4))
        assert [file.name for file in tmp_path.iterdir()] == (["missing.csv"] if folder else [])
    assert (tmp_path / "missing.csv").read_text("utf-8") == formats.to_csv(all_rows)
    show.table("missing", first, "Tracks")
    show.table("missing", show.save("missing", pages, limit=6), "Tracks")
    assert [bundle[show.MIME].get("of") for bundle in shown] == [6, None]
    captions = [f"<caption><span>Tracks{cut}</span>" for cut in (": the first 4 of 6", "")]
    assert all(words in b["text/html"] for words, b in zip(captions, shown, strict=True))

    def broken() -> Iterator[pd.DataFrame]:
        yield FRAME
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show.save("missing", broken(), limit=1)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_file_name_and_an_unknown_zone_are_refused() -> None:
    for name in ("By stage", "../x", "", "a/b", "x" * 64, "missing.csv"):
        with pytest.raises(InputError, match="expected lower-case letters, digits and underscores"):
            show.table(name, FRAME)
    for zone in ("Europe/Belrin", "../../etc/passwd", "", "+02:00"):
        with pytest.raises(InputError, match="unknown time zone"):
            show.table("missing", FRAME, timezone=zone)


def test_a_chart_is_data_and_without_plotly_bars_of_table_cells_and_words(
    shown: list[dict[str, Any]],
) -> None:
    steps = {"stage": ["s", "s"], "task_type": ["align", "<b>"]}
    audit = pd.DataFrame({**steps, "eligible": [3, 4], "visible": [1, 0], "hidden": [2, 0]})
    show.chart(charts.hidden_vs_visible(audit), "What waits")
    chart, caption = shown
    assert set(chart) == {show.PLOTLY, show.MIME, "text/plain", "text/html"}
    assert [trace["x"] for trace in chart[show.PLOTLY]["data"]] == [[2, 0], [1, 4], [1, 0]]
    words = {
        "align at s": ["2 missing, 1 with a task row", "1 shown by dashboards"],
        "<b> at s": ["4 with a task row", "0 shown by dashboards"],
    }
    said = [f"{label}: {text}" for label, texts in words.items() for text in texts]
    assert chart[show.MIME]["words"] == "; ".join(said)
    page = BeautifulSoup(chart["text/html"], "html.parser")
    rows = [(row.th.text, row.select("td")[-1].text) for row in page.select("tr")]
    assert rows == [(label, text) for label, texts in words.items() for text in texts]
    assert "script" not in chart["text/html"]
    assert caption["text/plain"] == "What waits"


def test_a_table_of_steps_adds_up_and_ids_are_not_numbers_to_add(
    shown: list[dict[str, Any]],
) -> None:
    steps = {"task_type": ["align", "clip"], "waiting": [1000, 234], "rate_per_hour": [0.5, 1.0]}
    for name, frame in {"steps": steps, "rows": {"id": [12345], "task_type": "align"}}.items():
        show.table(name, pd.DataFrame(frame))
    foot = BeautifulSoup(shown[0]["text/html"], "html.parser").select("tfoot tr > *")
    assert [cell.text for cell in foot] == ["all steps", "1,234", ""]
    assert ">12345<" in shown[1]["text/html"]
    assert "tfoot>" not in shown[1]["text/html"]


def said(end: pd.DataFrame | None = None, timezone: str = "UTC", **counts: int) -> str:
    """The verdict on one step of so many, and one of none."""
    states = ("waiting", "stuck", "exhausted", "drifted", "hidden", "orphans")
    frame = pd.DataFrame({name: [counts.get(name, 0), 0] for name in states})
    return summary.sentence(frame, frame, end=end, timezone=timezone)


def test_the_verdict_is_one_sentence() -> None:
    assert said() == "No track waits."
    assert said(stuck=2) == "No track waits; 2 more are stuck."
    assert said(waiting=1, hidden=1) == "1 track waits, but missing from dashboards."
    some = "1,419 tracks wait, 50 of them missing from dashboards; 1 more is stuck."
    assert said(waiting=1419, hidden=50, stuck=1) == some
    seen = "7 tracks wait, and dashboards see all of them"
    assert said(waiting=7) == f"{seen}."
    overstated = "7 tracks wait, but dashboards overstate it: 3 open rows are for tracks that "
    assert said(waiting=7, orphans=3).startswith(overstated)
    more = "1 more is stuck; 16 exhausted and 9 drifted will not move by themselves."
    assert said(waiting=7, stuck=1, exhausted=16, drifted=9) == f"{seen}; {more}"


def test_the_verdict_says_when_it_will_be_done_no_more_exactly_than_the_range() -> None:
    def when(at: str | None, timezone: str, **columns: float) -> str:
        """*at* is some time after Wednesday, 1 July, 14:00 UTC."""
        end = pd.DataFrame({"p80_at": pd.to_datetime(pd.Series([at]), utc=True)})
        seconds = (end["p80_at"] - pd.Timestamp("2026-07-01T14:00Z")).dt.total_seconds()
        status = "draining" if at else "insufficient_history"
        end = end.assign(p80_seconds=seconds, status=status, **columns)
        assert said(end, timezone) == "No track waits."
        return said(end, timezone, waiting=7).split("; ")[1]

    assert when(None, "UTC") == "too little history to say when they will be done."
    late = when("2026-07-09T14:00Z", "Asia/Tokyo")
    assert late == "all done by Thursday 9 July 2026 23:00 JST, 80% sure."
    for hours, words in {
        **{0.5: "Saturday 09:30 CEST", 4: "Saturday 10:00 CEST", 14: "Saturday morning (CEST)"},
        **{60: "Saturday", 300: "the week of 29 June 2026", 2000: "July 2026"},
    }.items():
        spread = {"lower_seconds": 5e3, "upper_seconds": 5e3 + 3600 * hours}
        found = when("2026-07-04 07:28Z", "Europe/Berlin", **spread)
        assert found == f"all done by {words}, 80% sure."
