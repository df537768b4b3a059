"""The incident: the same counts everywhere and always, and a history that could have happened."""

import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from conftest import STAGE_OF, TASKS, Bench, database
from queue_insights.demo import Seeded, binaries, migrate, seed, seeded
from queue_insights.errors import DemoError, InputError

WEDNESDAY = datetime(2025, 11, 19, 14, 0, tzinfo=UTC)
SUNDAY = datetime(2026, 3, 1, 3, 17, tzinfo=UTC)
STAGES = list(STAGE_OF.values())
STEPS = {"stages": STAGES, "tasks": TASKS}
STATES = """
    SELECT stage, CASE WHEN a.id IS NULL THEN 'missing'
        WHEN status = 'skipped' THEN 'skipped'
        WHEN status = 'completed' THEN 'drifted'
        WHEN status = 'running' AND last_attempt_at >= %(now)s - interval '30 min' THEN 'running'
        WHEN status = 'running' THEN 'stuck'
        WHEN (attempts < max_attempts) IS NOT TRUE THEN 'exhausted'
        WHEN next_retry_at > %(now)s THEN 'backing_off'
        WHEN status = 'pending' THEN 'pending'
        ELSE 'retryable' END AS state, count(*)
    FROM unnest(%(stages)s::text[], %(tasks)s::text[]) AS steps (stage, task_type)
    JOIN tracks AS t USING (stage) LEFT JOIN audio_tasks AS a USING (spotify_track_id, task_type)
    GROUP BY 1, 2
"""
CONTENT = "SELECT t::text FROM tracks t UNION ALL SELECT a::text FROM audio_tasks a ORDER BY 1"
Url = Callable[[str], str]
Fresh = Callable[[str], Bench]


@pytest.fixture(scope="module", params=["a", "b"])
def url(request: pytest.FixtureRequest, server: Url) -> Iterator[str]:
    """A database with the incident in it."""
    with database(server) as url:
        seed(url, request.param, anchor=WEDNESDAY)
        yield url


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


def states(url: str, now: datetime) -> dict[tuple[str, str], int]:
    return {(stage, state): count for stage, state, count in rows(url, STATES, now=now)}


def variant(url: str) -> str:
    found = seeded(url)
    assert found is not None
    return found.variant


def test_fifty_tracks_wait_for_align_and_every_source_says_none(url: str) -> None:
    found = states(url, WEDNESDAY)
    assert {key: found[key] for key in found if "audio_ready" in key} == {
        ("audio_ready", "missing"): 50
    }
    tracks = "JOIN tracks USING (spotify_track_id)"
    for source in ("audio_tasks", f"audio_tasks {tracks}", "task_summary"):
        pending = f"SELECT count(*) FROM {source} WHERE task_type = 'align' AND status = 'pending'"
        assert value(url, pending) == 0
    progress = f"SELECT sum(pending) FROM audio_progress {tracks} WHERE stage = 'audio_ready'"
    assert not value(url, progress)


def test_every_state_that_the_variant_can_hold_occurs_and_most_work_is_hidden(url: str) -> None:
    found = states(url, WEDNESDAY)
    wanted = {"missing", "pending", "retryable", "backing_off", "running", "stuck", "exhausted"}
    wanted |= {"drifted"} | ({"skipped"} if variant(url) == "b" else set())
    assert {state for _, state in found} == wanted
    for stage in STAGES[:5]:
        seen = [found.get((stage, state), 0) for state in ("pending", "retryable", "backing_off")]
        assert found[stage, "missing"] > 2 * sum(seen), stage


def test_orphans_of_both_kinds_and_odd_rows_are_there(url: str) -> None:
    orphans = """
        SELECT a.status, count(*) FROM audio_tasks a JOIN tracks t USING (spotify_track_id)
        WHERE task_type = ANY (%(tasks)s) AND stage <> ALL (%(stages)s) GROUP BY 1"""
    found = dict(rows(url, orphans))
    assert min(found["pending"], found["failed"]) > 10
    unfinished = """
        SELECT count(*) FROM tracks t WHERE stage = 'ready' AND 7 <> (
            SELECT count(*) FROM audio_tasks a
            WHERE a.spotify_track_id = t.spotify_track_id AND task_type = ANY (%(tasks)s))"""
    assert value(url, unfinished) == 0
    unstamped = "status = 'running' AND last_attempt_at IS NULL"
    for odd in (unstamped, "attempts IS NULL", "max_attempts IS NULL"):
        assert value(url, f"SELECT count(*) FROM audio_tasks WHERE {odd}") > 1, odd
    titles = value(url, "SELECT string_agg(title, '') FROM tracks")
    for part in ('"', "'", "<script>", "\n", "يا", "🔥", "=HYPERLINK", "Very, " * 40):
        assert part in titles


def test_video_rows_and_later_stages_are_in_variant_b_only(url: str) -> None:
    later = "stage IN ('translation_quiz_ready', 'trivia_ready', 'published', 'pkp_minted')"
    stages = value(url, f"SELECT count(DISTINCT stage) FROM tracks WHERE {later}")
    if variant(url) == "a":
        assert stages == 0
        return
    assert stages == 4
    videos = """SELECT status, bool_and(spotify_track_id IS NULL) FROM audio_tasks
                WHERE subject_type = 'tiktok_video' GROUP BY 1 ORDER BY 1"""
    every = ("completed", "failed", "pending", "running", "skipped")
    assert rows(url, videos) == [(status, True) for status in every]


def test_each_tracks_history_could_have_happened(url: str) -> None:
    found = rows(
        url,
        """SELECT spotify_track_id, t.created_at, t.updated_at, task_type, status, a.created_at,
                  last_attempt_at, a.updated_at, completed_at, processing_duration_ms
           FROM tracks t JOIN audio_tasks a USING (spotify_track_id)
           WHERE task_type = ANY (%(tasks)s) ORDER BY 1, array_position(%(tasks)s, task_type)""",
    )
    assert len(found) > 35_000
    before: tuple[str, datetime] | None = None
    for track, made, moved, task, status, created, last, updated, completed, ran in found:
        earliest = before[1] if before is not None and before[0] == track else made
        assert earliest <= created <= (last or created) <= updated <= WEDNESDAY, (track, task)
        assert made <= moved <= WEDNESDAY
        assert (completed is not None) == (status == "completed") == (ran is not None)
        if completed is not None:
            assert completed == updated
            assert completed - last == timedelta(milliseconds=ran)
            assert timedelta() < completed - last <= timedelta(minutes=20)
            before = track, completed
    next_id = "SELECT nextval(pg_get_serial_sequence('audio_tasks', 'id'))"
    assert value(url, next_id) > value(url, "SELECT max(id) FROM audio_tasks")


@pytest.mark.proof
@pytest.mark.parametrize("anchor", [WEDNESDAY, SUNDAY])
def test_nights_and_weekends_are_quiet_whatever_the_anchor(empty: str, anchor: datetime) -> None:
    seed(empty, anchor=anchor)
    per_hour = """
        SELECT count(*)::float / (
            SELECT count(*) FROM generate_series(%(since)s, %(anchor)s, interval '1 hour') AS at
            WHERE extract({0} FROM at AT TIME ZONE 'UTC') BETWEEN {1})
        FROM audio_tasks WHERE extract({0} FROM completed_at AT TIME ZONE 'UTC') BETWEEN {1}"""

    def rate(*when: str) -> float:
        since = anchor - timedelta(days=60)
        return float(value(empty, per_hour.format(*when), anchor=anchor, since=since))

    assert rate("isodow", "6 AND 7") < 0.7 * rate("isodow", "1 AND 5")
    assert rate("hour", "0 AND 5") < 0.6 * rate("hour", "10 AND 17")


@pytest.mark.proof
@pytest.mark.parametrize("variant", ["a", "b"])
def test_counts_depend_on_the_arguments_only(empty: str, variant: str) -> None:
    summary = "SELECT category, task_type, status, count FROM task_summary ORDER BY 1, 2, 3"
    counts, contents = [], []
    for anchor in (WEDNESDAY, SUNDAY, WEDNESDAY):
        seed(empty, variant, tracks=2000, anchor=anchor)
        assert seeded(empty) == Seeded(variant, 2000, anchor)
        counts.append((states(empty, anchor), rows(empty, summary)))
        contents.append(rows(empty, CONTENT))
    assert counts[0] == counts[1] == counts[2]
    assert [n for (stage, _), n in counts[0][0].items() if stage == "audio_ready"] == [50]
    assert contents[0] == contents[2] != contents[1]


def definitions(url: str) -> list[str]:
    """As pg_dump prints them, without its own commands and the options of columns: some builds of
    Postgres note numbers there that differ in each database."""
    dump = [binaries.installed() / "pg_dump", "--schema-only", "--no-comments", url]
    done = subprocess.run(dump, check=True, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line[:1] != "\\" and " SET (" not in line]


@pytest.mark.parametrize("variant", ["a", "b"])
def test_seeding_leaves_the_schema_as_it_is_created(fresh: Fresh, empty: str, variant: str) -> None:
    seed(empty, variant, tracks=1000, anchor=WEDNESDAY)
    assert definitions(empty) == definitions(fresh(variant).url)
    if variant == "b":
        return
    ids = "SELECT id, spotify_track_id, task_type, status, updated_at FROM audio_tasks ORDER BY 1"
    before = rows(empty, ids), states(empty, WEDNESDAY)
    with psycopg.connect(empty) as connection:
        migrate(connection)
    assert (rows(empty, ids), states(empty, WEDNESDAY)) == before
    assert definitions(empty) == definitions(fresh("b").url)


def test_tables_in_use_are_left_and_so_are_tables_that_are_no_demos(empty: str) -> None:
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


def test_arguments_that_will_not_do_are_refused(server: Url, empty: str) -> None:
    bad_moment = {"anchor": datetime(2025, 11, 19)}
    for arguments in ({"variant": "c"}, {"tracks": 999}, {"tracks": "6000"}, bad_moment):
        with pytest.raises(InputError):
            seed(empty, **arguments)  # type: ignore[arg-type]
    with pytest.raises(DemoError, match="does not exist"):
        seed(server("seed_missing"))
    assert seeded(empty) is None
