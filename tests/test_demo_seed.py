"""The incident: the same counts everywhere and always, and a history that could have happened."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from conftest import STAGE_OF, TASKS, Fresh, Url, database
from queue_insights.demo import Seeded, binaries, migrate, seed, seeded
from queue_insights.errors import DemoError, InputError
from queue_insights.queue import Queue
from queue_insights.reads import STATES

WEDNESDAY = datetime(2025, 11, 19, 14, 0, tzinfo=UTC)
SUNDAY = datetime(2026, 3, 1, 3, 17, tzinfo=UTC)
STEPS = {"stages": list(STAGE_OF.values()), "tasks": TASKS}
CONTENT = "SELECT t::text FROM tracks t UNION ALL SELECT a::text FROM audio_tasks a ORDER BY 1"
COUNTS = """
    SELECT stage, status, attempts < max_attempts, next_retry_at > %(anchor)s,
           status = 'running' AND last_attempt_at >= %(anchor)s - interval '30 min', count(*)
    FROM unnest(%(stages)s::text[], %(tasks)s::text[]) AS steps (stage, task_type)
    JOIN tracks USING (stage) LEFT JOIN audio_tasks USING (spotify_track_id, task_type)
    GROUP BY 1, 2, 3, 4, 5
    UNION ALL SELECT category, task_type || status, null, null, null, count FROM task_summary
    ORDER BY 1, 2, 3, 4, 5
"""


@pytest.fixture
def empty(server: Url) -> Iterator[str]:
    with database(server) as url:
        yield url


def rows(url: str, query: str, **parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query, {**STEPS, **parameters}).fetchall()


def value(url: str, query: str, **parameters: object) -> Any:
    ((found,),) = rows(url, query, **parameters)
    return found


def test_fifty_tracks_wait_for_align_and_every_source_says_none(history: Queue) -> None:
    audit = history.audit(sources=True).set_index("task_type").loc["align"]
    sources = ["get_pending_tasks", "task_summary", "audio_progress"]
    assert audit[["eligible", "hidden", "visible", *sources]].tolist() == [50, 50, 0, 0, 0, 0]
    assert history.backlog().total[1] == 50


def test_every_state_that_the_variant_can_hold_occurs_and_most_work_is_hidden(
    history: Queue, history_url: str
) -> None:
    backlog, b = history.backlog(), history.schema.variant == "b"
    never = {"blocked", "other", *([] if b else ["skipped"])}
    assert {state for state in STATES if backlog[state].sum()} == {*STATES} - never
    seen = backlog[["pending", "retryable", "backing_off"]].sum(axis=1)
    assert (backlog.missing > 2 * seen)[:5].all()
    orphans = history.orphans().status.value_counts()
    assert orphans[["pending", "failed"]].min() > 10
    unfinished = """
        SELECT count(*) FROM tracks t WHERE stage = 'ready' AND 7 <> (
            SELECT count(*) FROM audio_tasks a
            WHERE a.spotify_track_id = t.spotify_track_id AND task_type = ANY (%(tasks)s))"""
    assert value(history_url, unfinished) == 0
    titles = value(history_url, "SELECT string_agg(title, '') FROM tracks")
    for part in ('"', "'", "<script>", "\n", "يا", "🔥", "=HYPERLINK", "Very, " * 40):
        assert part in titles
    if b:
        videos = """SELECT status, bool_and(spotify_track_id IS NULL) FROM audio_tasks
                    WHERE subject_type = 'tiktok_video' GROUP BY 1 ORDER BY 1"""
        every = ("completed", "failed", "pending", "running", "skipped")
        assert rows(history_url, videos) == [(status, True) for status in every]


IMPOSSIBLE = """
    SELECT * FROM (
        SELECT *, max(completed_at) OVER (
                   PARTITION BY spotify_track_id ORDER BY array_position(%(tasks)s, task_type)
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
        FROM audio_tasks WHERE task_type = ANY (%(tasks)s)) AS a
    JOIN tracks AS t USING (spotify_track_id)
    WHERE NOT (coalesce(before, t.created_at) <= a.created_at
               AND a.created_at <= coalesce(last_attempt_at, a.created_at)
               AND coalesce(last_attempt_at, a.created_at) <= a.updated_at
               AND greatest(a.updated_at, t.updated_at) <= %(anchor)s
               AND t.created_at <= t.updated_at)
        OR (completed_at IS NOT NULL) <> (status = 'completed')
        OR (completed_at IS NOT NULL) <> (processing_duration_ms IS NOT NULL)
        OR completed_at <> a.updated_at OR processing_duration_ms NOT BETWEEN 1 AND 20 * 60 * 1000
        OR completed_at - last_attempt_at <> processing_duration_ms * interval '1 ms'
"""


def test_each_tracks_history_could_have_happened(history_url: str) -> None:
    demo = seeded(history_url)
    assert demo
    assert value(history_url, "SELECT count(*) FROM audio_tasks") > 5 * demo.tracks
    assert rows(history_url, IMPOSSIBLE, anchor=demo.anchor) == []


@pytest.mark.proof
@pytest.mark.parametrize("variant", ["a", "b"])
def test_counts_depend_on_the_arguments_only(empty: str, variant: str) -> None:
    counts, contents = [], []
    for anchor in (WEDNESDAY, SUNDAY, WEDNESDAY):
        seed(empty, variant, tracks=2000, anchor=anchor)
        assert seeded(empty) == Seeded(variant, 2000, anchor)
        counts.append(rows(empty, COUNTS, anchor=anchor))
        contents.append(rows(empty, CONTENT))
    assert counts[0] == counts[1] == counts[2]
    assert contents[0] == contents[2] != contents[1]


def definitions(url: str) -> list[str]:
    """As pg_dump prints them, without its own commands and the options of columns: some builds of
    Postgres note numbers there that differ in each database."""
    dump = [binaries.installed() / "pg_dump", "--schema-only", "--no-comments", url]
    done = subprocess.run(dump, check=True, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line[:1] != "\\" and " SET (" not in line]


@pytest.mark.parametrize("variant", ["a", "b"])
def test_seeding_and_migrating_leave_the_schema_as_it_is_created(
    fresh: Fresh, empty: str, variant: str
) -> None:
    seed(empty, variant, tracks=1000, anchor=WEDNESDAY)
    assert definitions(empty) == definitions(fresh(variant).url)
    if variant == "a":
        ids = "SELECT id, spotify_track_id, task_type, status, updated_at FROM audio_tasks ORDER BY"
        before = rows(empty, f"{ids} id"), rows(empty, COUNTS, anchor=WEDNESDAY)
        with psycopg.connect(empty) as connection:
            migrate(connection)
        assert (rows(empty, f"{ids} id"), rows(empty, COUNTS, anchor=WEDNESDAY)) == before
        assert definitions(empty) == definitions(fresh("b").url)


def test_what_will_not_do_is_refused_and_tables_in_use_or_of_no_demo_are_left(empty: str) -> None:
    bad_moment = {"anchor": datetime(2025, 11, 19)}
    for arguments in ({"variant": "c"}, {"tracks": 999}, {"tracks": "6000"}, bad_moment):
        with pytest.raises(InputError):
            seed(empty, **arguments)  # type: ignore[arg-type]
    with pytest.raises(DemoError, match="does not exist"):
        seed(empty.replace("/test_", "/no_test_"))
    assert seeded(empty) is None
    seed(empty, tracks=1000)
    with psycopg.connect(empty) as connection:
        connection.execute("SELECT FROM tracks LIMIT 1")
        with pytest.raises(DemoError, match="in use"):
            seed(empty, tracks=1000)
        connection.execute("COMMENT ON TABLE tracks IS NULL")
    with pytest.raises(DemoError, match="no demo's"):
        seed(empty)
    assert value(empty, "SELECT count(*) FROM tracks") == 1000
    assert seeded(empty) is None
