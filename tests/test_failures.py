"""Why tasks fail: messages of a kind are one, others are not, and their rows are counted."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import STAGE_OF, Bench
from fuzzing import cases
from queue_insights.errors import InputError

# What varies between messages of one kind; {} in a template is one of these.
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**12).map(str),
    st.decimals(0, 1000, places=2).map(str),
    st.integers(0, 10**9).map("{:,}".format),
    st.integers(0, 2**64).map("0x{:x}".format),
)
IDS = st.one_of(
    st.uuids().map(str),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.from_regex("[A-Za-z0-9]{10}[0-9][A-Za-z0-9]{11}", fullmatch=True),
)
ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.tuples(st.sampled_from(["http", "s3"]), IDS).map("{0[0]}://cdn.example.com/a/{0[1]}".format),
    st.just("https://example.com/search?q=abc&page=x#top"),
    st.from_regex("[a-z]{2,8}@[a-z]{3,9}[.]org", fullmatch=True),
)
PATHS = st.lists(st.from_regex("[a-z0-9_.-]{0,8}[a-z0-9]", fullmatch=True), min_size=2).map(
    lambda parts: "/" + "/".join(parts)
)
TITLES = st.text(st.characters(codec="utf-8", categories=("L", "N", "Zs")), min_size=1)
QUOTED = st.one_of(
    *(TITLES.map(f"{a}{{}}{b}".format) for a, b in ('""', "''", "``", "“”", "«»", "„“", "「」")),
    st.just("'Don't Stop Me Now'"),
    st.just('"the \\"best\\" of 7"'),
)
VARYING = st.one_of(NUMBERS, IDS, ADDRESSES, PATHS, QUOTED)
TEMPLATES = [
    "timed out after {} s",
    "timeout: no answer within {} s",
    "HTTP {} from {} while {} was read",
    "cannot open {}: no such file",
    "can't decode byte {} in position {}: it isn't UTF-8",
    "Дорожка {} не найдена",
    "曲{}を同期できません",
    "Traceback (most recent call last):\n  File {}, line {}, in run\nValueError: bad {}",
    "Traceback (most recent call last):\n  File {}, line {}, in run\nKeyError: {}",
    '{{"code": {}, "reason": {}}}',
    "100%% of :name and \\ are data {}",
    "connection reset by peer",
]


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Failed rows, each with the number of its template (None: an empty message)."""
    made = []
    for number in range(draw(st.integers(1, 25))):
        kind = draw(st.one_of(st.none(), st.integers(0, len(TEMPLATES) - 1)))
        empty = draw(st.sampled_from([None, "", "  \n"]))
        template = "" if kind is None else TEMPLATES[kind]
        varying = [draw(VARYING) for _ in range(template.count("{}"))]
        task = draw(st.sampled_from(list(STAGE_OF)[:3]))
        made.append(
            {
                **{"id": f"track {number}", "kind": kind, "task": task},
                "message": empty if kind is None else template.format(*varying),
                "stage": draw(st.sampled_from([STAGE_OF[task], STAGE_OF[task], "ready"])),
                "attempts": draw(st.sampled_from([1, 3, None])),
                "hours": draw(st.sampled_from([None, 0.5, 5, 30, 150, 900])),
            }
        )
    return made


def model(found: list[dict[str, Any]], since: float) -> dict[tuple[str, int | None], list[Any]]:
    """By task and template: rows, exhausted, retryable, last hour, day, week, and whether new."""
    counted: dict[tuple[str, int | None], list[Any]] = defaultdict(lambda: [0] * 6 + [None])
    for row in found:
        here, hours = row["stage"] == STAGE_OF[row["task"]], row["hours"]
        entry = counted[row["task"], row["kind"]]
        if here:
            entry[0] += 1
            entry[1] += row["attempts"] != 1
            entry[2] += row["attempts"] == 1
            for column, age in ((3, 1), (4, 24), (5, 168)):
                entry[column] += hours is not None and hours < age
        if hours is not None:
            entry[6] = hours <= since if entry[6] is None else entry[6] and hours <= since
    return {key: [*e[:6], bool(e[6])] for key, e in counted.items() if e[0]}


@cases(5)
@given(found=rows(), since=st.sampled_from([1, 24, 168]))
def test_messages_are_one_kind_where_only_numbers_ids_addresses_and_quotes_differ(
    bench: Bench, found: list[dict[str, Any]], since: int
) -> None:
    bench.sql("TRUNCATE tracks, audio_tasks")
    now = datetime.now(UTC)
    for row in found:
        at = None if row["hours"] is None else now - timedelta(hours=row["hours"])
        given = {"attempts": row["attempts"], "last_attempt_at": at}
        bench.track(row["id"], row["stage"])
        bench.task(row["id"], row["task"], "failed", error_message=row["message"], **given)
    failures = bench.queue.failures(since=f"{since}h")
    kinds: dict[str, set[tuple[str, int | None]]] = defaultdict(set)
    answer = {}
    for task in set(failures["task_type"]):
        for failure in failures.loc[failures["task_type"] == task, "failure"]:
            chosen = bench.queue.tasks(task=task, failure=failure)
            shown = {int(id.removeprefix("track ")) for id in chosen["spotify_track_id"]}
            (kind,) = {found[number]["kind"] for number in shown}
            kinds[failure].add((task, kind))
            row = failures.query("task_type == @task and failure == @failure").iloc[0]
            counts = ("rows", "exhausted", "retryable", "last_hour", "last_day", "last_week")
            answer[task, kind] = [*(int(row[name]) for name in counts), bool(row["new"])]
            assert len(chosen) == row["rows"]
    assert answer == model(found, since)
    assert len(failures) == len(answer)
    assert all(len({kind for _, kind in each}) == 1 for each in kinds.values())
    assert failures["rows"].is_monotonic_decreasing


def test_a_failed_row_says_when_its_kind_was_first_and_last_seen(bench: Bench) -> None:
    for number, hours in enumerate((50, 2, 3)):
        bench.track(f"t{number}", "audio_ready")
        at = datetime.now(UTC) - timedelta(hours=hours)
        text = f"no answer from 10.0.0.{number}"
        bench.task(f"t{number}", "align", "failed", last_attempt_at=at, error_message=text)
    (row,) = bench.queue.failures().to_dict("records")
    assert row["error"] == "no answer from *"
    ages = [
        (pd.Timestamp.now("UTC") - row[name]).round("h") for name in ("first_seen", "last_seen")
    ]
    assert ages == [pd.Timedelta("50h"), pd.Timedelta("2h")]
    assert bench.queue.failures(task="download").empty


def test_lists_are_narrowed_down_to_ids_and_an_empty_selection_chooses_nothing(
    bench: Bench,
) -> None:
    names = ["it's", 'a "b"', "50%", ":name", "two\nlines", "{{x}}", "\\", "plain"]
    for name in names:
        bench.track(name, "audio_ready")
        bench.task(bench.track(f"o {name}", "ready"), "align")
    for name in ("50%", "plain"):
        bench.task(name, "align", "failed", attempts=1, error_message="x 1")
    chosen = ["it's", "two\nlines", "no such track", "50%", "50%"]
    lists = bench.queue.tasks, bench.queue.upcoming
    for read in lists:
        assert sorted(read(ids=chosen)["spotify_track_id"]) == ["50%", "it's", "two\nlines"]
        assert read(ids=[]).empty
    assert sorted(bench.queue.missing(ids=chosen)["spotify_track_id"]) == ["it's", "two\nlines"]
    orphans = bench.queue.orphans(ids=["o it's", "it's"])
    assert list(orphans["spotify_track_id"]) == ["o it's"]
    (failure,) = bench.queue.failures()["failure"]
    assert list(bench.queue.tasks(failure=failure, ids=chosen)["spotify_track_id"]) == ["50%"]
    assert bench.queue.orphans(failure=failure).empty


@pytest.mark.parametrize("wrong", [{"failure": "x"}, {"ids": [None]}, {"ids": ["a\0b"]}])
def test_what_is_no_selection_is_refused(bench: Bench, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        bench.queue.tasks(**wrong)
