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
    *(st.integers(-(10**6), 10**12).map(str), st.decimals(0, 1000, places=2).map(str)),
    *(st.integers(0, 10**9).map("{:,}".format), st.integers(0, 2**64).map("0x{:x}".format)),
)
IDS = st.one_of(
    *(st.uuids().map(str), st.binary(min_size=16, max_size=16).map(bytes.hex)),
    st.from_regex("[A-Za-z0-9]{10}[0-9][A-Za-z0-9]{11}", fullmatch=True),
)
ADDRESSES = st.one_of(
    *(st.ip_addresses(v=4).map(str), st.just("https://example.com/search?q=abc&page=x#top")),
    st.tuples(st.sampled_from(["http", "s3"]), IDS).map("{0[0]}://cdn.example.com/a/{0[1]}".format),
    st.from_regex("[a-z]{2,8}@[a-z]{3,9}[.]org", fullmatch=True),
    st.from_regex("(/[a-z0-9_.-]{0,8}[a-z0-9]){2,4}", fullmatch=True),
)
TITLES = st.text(st.characters(codec="utf-8", categories=("L", "N", "Zs")), min_size=1)
QUOTED = st.one_of(
    *(TITLES.map(f"{a}{{}}{b}".format) for a, b in ('""', "''", "``", "“”", "«»", "„“", "「」")),
    *(st.just("'Don't Stop Me Now'"), st.just('"the \\"best\\" of 7"')),
)
VARYING = st.one_of(NUMBERS, IDS, ADDRESSES, QUOTED)
TEMPLATES = [
    "timed out after {} s",
    "HTTP {} from {} while {} was read",
    "cannot open {}: no such file",
    "can't decode byte {} in position {}: it isn't UTF-8",
    "Дорожка {} не найдена",
    "曲{}を同期できません",
    "Traceback (most recent call last):\n  File {}, line {}, in run\nValueError: bad {}",
    '{{"code": {}, "reason": {}}}',
    "100%% of :name and \\ are data {}",
    "connection reset by peer",
]


ROW = st.fixed_dictionaries(
    {
        "kind": st.none() | st.integers(0, len(TEMPLATES) - 1),  # None: a message that is empty
        "empty": st.sampled_from([None, "", "  \n"]),
        "varying": st.tuples(VARYING, VARYING, VARYING),
        "task": st.sampled_from(list(STAGE_OF)[:3]),
        "here": st.sampled_from([True, True, False]),
        "attempts": st.sampled_from([1, 3, None]),
        "hours": st.sampled_from([None, 0.5, 5, 30, 150, 900]),
    }
)


def model(found: list[dict[str, Any]], since: float) -> dict[tuple[str, int | None], list[Any]]:
    """By task and template: rows, exhausted, retryable, last hour, day, week, and whether new."""
    counted: dict[tuple[str, int | None], list[Any]] = defaultdict(lambda: [0] * 6)
    seen = defaultdict(list)  # orphans too, who are not counted
    for row in found:
        key, hours = (row["task"], row["kind"]), row["hours"]
        seen[key] += [] if hours is None else [hours]
        if row["here"]:
            again, known = row["attempts"] == 1, hours is not None
            ages = (known and hours < age for age in (1, 24, 168))
            added = (1, not again, again, *ages)
            counted[key] = [sum(pair) for pair in zip(counted[key], added, strict=True)]
    return {
        key: [*counts, bool(seen[key]) and max(seen[key]) <= since]
        for key, counts in counted.items()
    }


@cases(5)
@given(found=st.lists(ROW, min_size=1, max_size=25), since=st.sampled_from([1, 24, 168]))
def test_messages_are_one_kind_where_only_numbers_ids_addresses_and_quotes_differ(
    bench: Bench, found: list[dict[str, Any]], since: int
) -> None:
    bench.sql("TRUNCATE tracks, audio_tasks")
    now = datetime.now(UTC)
    for number, row in enumerate(found):
        kind, hours = row["kind"], row["hours"]
        message = row["empty"] if kind is None else TEMPLATES[kind].format(*row["varying"])
        at = None if hours is None else now - timedelta(hours=hours)
        given = {"attempts": row["attempts"], "last_attempt_at": at, "error_message": message}
        track = bench.track(f"track {number}", STAGE_OF[row["task"]] if row["here"] else "ready")
        bench.task(track, row["task"], "failed", **given)
    failures = bench.queue.failures(since=f"{since}h")
    kinds: dict[str, set[int | None]] = defaultdict(set)
    answer = {}
    for row in failures.to_dict("records"):
        chosen = bench.queue.tasks(task=row["task_type"], failure=row["failure"])
        assert len(chosen) == row["rows"]
        shown = {int(id.removeprefix("track ")) for id in chosen["spotify_track_id"]}
        (kind,) = {found[number]["kind"] for number in shown}
        kinds[row["failure"]].add(kind)
        counts = ("rows", "exhausted", "retryable", "last_hour", "last_day", "last_week", "new")
        answer[row["task_type"], kind] = [row[name] for name in counts]
    assert answer == model(found, since)
    assert len(failures) == len(answer)
    assert all(len(each) == 1 for each in kinds.values())
    assert failures["rows"].is_monotonic_decreasing


def test_a_kind_has_its_text_and_times_and_a_list_of_it_or_of_ids_has_no_other(
    bench: Bench,
) -> None:
    names = ["it's", 'a "b"', "50%", ":name", "two\nlines", "{{x}}", "\\", "plain"]
    for name in names:
        bench.track(name, "audio_ready")
        bench.task(bench.track(f"o {name}", "ready"), "align")
    for name, hours in (("50%", 50), ("plain", 2), ("\\", 3)):
        at = datetime.now(UTC) - timedelta(hours=hours)
        text = f"no answer from 10.0.0.{hours}"
        given = {"attempts": 1, "last_attempt_at": at, "error_message": text}
        bench.task(name, "align", "failed", **given)
    (row,) = bench.queue.failures().to_dict("records")
    assert row["error"] == "no answer from *"
    assert bench.queue.failures(task="download").empty
    ages = [pd.Timestamp.now("UTC") - row[name] for name in ("first_seen", "last_seen")]
    assert [age.round("h") for age in ages] == [pd.Timedelta("50h"), pd.Timedelta("2h")]
    chosen = ["it's", "two\nlines", "no such track", "50%", "50%"]
    for read, of, expected in (
        (bench.queue.tasks, {"ids": chosen}, ["50%", "it's", "two\nlines"]),
        (bench.queue.upcoming, {"ids": chosen}, ["50%", "it's", "two\nlines"]),
        (bench.queue.missing, {"ids": chosen}, ["it's", "two\nlines"]),
        (bench.queue.orphans, {"ids": ["o it's", "it's"]}, ["o it's"]),
        (bench.queue.tasks, {"ids": chosen, "failure": row["failure"]}, ["50%"]),
        (bench.queue.orphans, {"failure": row["failure"]}, []),
        (bench.queue.tasks, {"ids": []}, []),
    ):
        assert sorted(read(**of)["spotify_track_id"]) == expected
    for wrong in ({"failure": "x"}, {"ids": [None]}, {"ids": ["a\0b"]}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            bench.queue.tasks(**wrong)
