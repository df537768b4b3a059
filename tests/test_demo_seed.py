"""The incident: the same counts everywhere and always, and a history that could have happened."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg import sql

from queue_insights.demo import create_schema, migrate, seed, seeded
from queue_insights.errors import DemoError, InputError

WEDNESDAY = datetime(2025, 11, 19, 14, 0, tzinfo=UTC)
SUNDAY = datetime(2026, 3, 1, 3, 17, tzinfo=UTC)
STEPS = {
    "lyrics_acquired": "download",
    "audio_ready": "align",
    "aligned": "translate",
    "translated": "separate",
    "separated": "segment",
    "segmented": "enhance",
    "enhanced": "clip",
}
STATES = """
    WITH steps (stage, task_type) AS (VALUES {steps}), now (now) AS (VALUES (%(now)s::timestamptz))
    SELECT stage, task_type, status,
        CASE WHEN a.id IS NULL THEN 'missing'
             WHEN status = 'skipped' THEN 'skipped'
             WHEN status = 'completed' THEN 'drifted'
             WHEN last_attempt_at >= now - interval '30 min' AND status = 'running' THEN 'running'
             WHEN status = 'running' THEN 'stuck'
             WHEN (attempts < max_attempts) IS NOT TRUE THEN 'exhausted'
             WHEN next_retry_at > now THEN 'backing_off'
             WHEN status = 'pending' THEN 'pending'
             ELSE 'retryable' END AS state,
        count(*)
    FROM now, steps JOIN tracks AS t USING (stage)
    LEFT JOIN audio_tasks AS a USING (spotify_track_id, task_type)
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
CONTENT = """
    SELECT (SELECT md5(string_agg(t::text, chr(10) ORDER BY spotify_track_id)) FROM tracks AS t),
           (SELECT md5(string_agg(a::text, chr(10) ORDER BY id)) FROM audio_tasks AS a)
"""
DEFINITIONS = """
    SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod)
           || CASE WHEN attnotnull THEN ' not null ' ELSE ' ' END
           || coalesce(pg_get_expr(adbin, adrelid), '')
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = ANY (ARRAY['tracks'::regclass, 'audio_tasks'::regclass]) AND attnum > 0
    UNION SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid = ANY (ARRAY['tracks'::regclass, 'audio_tasks'::regclass])
    UNION SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION SELECT 'view', viewname, '', definition FROM pg_views WHERE schemaname = 'public'
    UNION SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)
    FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1, 2, 3
"""
Rows = list[tuple[Any, ...]]
Url = Callable[[str], str]


def database(server: Url, name: str) -> str:
    with psycopg.connect(server("postgres"), autocommit=True) as connection:
        identifier = sql.Identifier(f"seed_{name}")
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(identifier))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
    return server(f"seed_{name}")


@pytest.fixture(scope="module", params=["a", "b"])
def url(request: pytest.FixtureRequest, server: Url) -> str:
    url = database(server, request.param)
    seed(url, request.param, anchor=WEDNESDAY)
    return url


def rows(url: str, query: str, **parameters: object) -> Rows:
    with psycopg.connect(url) as connection:
        return connection.execute(query, parameters or None).fetchall()


def states(url: str, now: datetime) -> Rows:
    pairs = sql.SQL(", ").join(
        sql.SQL("({}, {})").format(stage, task) for stage, task in STEPS.items()
    )
    with psycopg.connect(url) as connection:
        return connection.execute(sql.SQL(STATES).format(steps=pairs), {"now": now}).fetchall()


def variant_of(url: str) -> str:
    marker = seeded(url)
    assert marker is not None
    return marker.variant


def test_fifty_tracks_wait_for_align_and_every_source_says_none(url: str) -> None:
    at_align = [row for row in states(url, WEDNESDAY) if row[0] == "audio_ready"]
    assert at_align == [("audio_ready", "align", None, "missing", 50)]
    pending = "task_type = 'align' AND status = 'pending'"
    assert rows(url, f"SELECT count(*) FROM audio_tasks WHERE {pending}") == [(0,)]
    assert rows(url, f"SELECT count(*) FROM task_summary WHERE {pending}") == [(0,)]
    assert rows(
        url,
        """SELECT count(*) FROM audio_tasks a JOIN tracks t USING (spotify_track_id)
           WHERE a.status = 'pending' AND a.task_type = 'align'""",
    ) == [(0,)]
    assert rows(
        url,
        """SELECT coalesce(sum(pending), 0) FROM audio_progress JOIN tracks USING (spotify_track_id)
           WHERE stage = 'audio_ready'""",
    ) == [(0,)]


def test_every_state_that_the_variant_can_hold_occurs(url: str) -> None:
    found = {row[3] for row in states(url, WEDNESDAY)}
    wanted = {"missing", "pending", "retryable", "backing_off", "running", "stuck", "exhausted"}
    wanted |= {"drifted"} | ({"skipped"} if variant_of(url) == "b" else set())
    assert found == wanted


def test_the_hidden_work_is_most_of_the_work_at_the_earlier_steps(url: str) -> None:
    for stage in list(STEPS)[:5]:
        here = {row[3]: row[4] for row in states(url, WEDNESDAY) if row[0] == stage}
        others = sum(here.get(state, 0) for state in ("pending", "retryable", "backing_off"))
        assert here["missing"] > 2 * others, stage


def test_orphans_of_both_kinds_and_odd_rows_are_there(url: str) -> None:
    orphans = dict(
        rows(
            url,
            """SELECT a.status, count(*) FROM audio_tasks a JOIN tracks t USING (spotify_track_id)
               WHERE a.task_type = ANY (%(ours)s) AND t.stage <> ALL (%(due)s)
                 AND a.status IN ('pending', 'failed')
               GROUP BY 1""",
            ours=list(STEPS.values()),
            due=list(STEPS),
        )
    )
    assert min(orphans["pending"], orphans["failed"]) > 10
    unfinished = """SELECT count(*) FROM tracks WHERE stage = 'ready' AND 7 <> (
        SELECT count(*) FROM audio_tasks a
        WHERE a.spotify_track_id = tracks.spotify_track_id AND task_type = ANY (%(ours)s))"""
    assert rows(url, unfinished, ours=list(STEPS.values())) == [(0,)]
    for odd in (
        "status = 'running' AND last_attempt_at IS NULL",
        "attempts IS NULL",
        "max_attempts IS NULL",
    ):
        assert rows(url, f"SELECT count(*) > 1 FROM audio_tasks WHERE {odd}") == [(True,)], odd
    titles = "".join(row[0] for row in rows(url, "SELECT title FROM tracks"))
    assert all(part in titles for part in ('"', "'", "<script>", "\n", "يا", "🔥", "Very, " * 40))
    assert rows(url, "SELECT count(*) FROM tracks WHERE title LIKE '=%%'") == [(1,)]


def test_video_rows_and_later_stages_are_in_variant_b_only(url: str) -> None:
    later = "stage IN ('translation_quiz_ready', 'trivia_ready', 'published', 'pkp_minted')"
    stages = rows(url, f"SELECT count(DISTINCT stage) FROM tracks WHERE {later}")[0][0]
    if variant_of(url) == "a":
        assert stages == 0
        return
    assert stages == 4
    videos = rows(
        url,
        """SELECT status, bool_and(spotify_track_id IS NULL) FROM audio_tasks
           WHERE subject_type = 'tiktok_video' GROUP BY status ORDER BY status""",
    )
    assert videos == [(s, True) for s in ("completed", "failed", "pending", "running", "skipped")]


def test_each_tracks_history_could_have_happened(url: str) -> None:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            """SELECT t.spotify_track_id, t.created_at, t.updated_at, a.task_type, a.status,
                      a.created_at, a.last_attempt_at, a.updated_at, a.completed_at,
                      a.processing_duration_ms
               FROM tracks t JOIN audio_tasks a USING (spotify_track_id)
               WHERE a.task_type = ANY (%s) ORDER BY 1, array_position(%s, a.task_type)""",
            [list(STEPS.values()), list(STEPS.values())],
        ).fetchall()
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


def test_ids_follow_creation_and_the_next_one_is_free(url: str) -> None:
    ours = "task_type = ANY (ARRAY['" + "','".join(STEPS.values()) + "'])"
    created = rows(url, f"SELECT created_at FROM audio_tasks WHERE {ours} ORDER BY id")
    assert all(one <= next_one for one, next_one in pairwise(created))
    assert rows(
        url,
        "SELECT nextval(pg_get_serial_sequence('audio_tasks', 'id')) > max(id) FROM audio_tasks",
    ) == [(True,)]


def test_rows_came_before_work_until_ten_days_ago_and_with_it_since(url: str) -> None:
    share = """SELECT avg((last_attempt_at - created_at > interval '2 seconds')::int)::float
               FROM audio_tasks WHERE task_type = 'download' AND status = 'completed'
               AND attempts = 1 AND created_at {} %(since)s"""
    since = WEDNESDAY - timedelta(days=10)
    assert rows(url, share.format("<"), since=since)[0][0] > 0.5
    assert rows(url, share.format(">"), since=since + timedelta(days=1)) == [(0,)]


def test_work_is_recent_at_every_step_and_the_backlog_is_of_hours(url: str) -> None:
    recent = rows(
        url,
        """SELECT task_type, max(completed_at), count(*) FILTER (WHERE completed_at > %(day)s)
           FROM audio_tasks WHERE task_type = ANY (%(ours)s) GROUP BY 1""",
        day=WEDNESDAY - timedelta(days=1),
        ours=list(STEPS.values()),
    )
    assert len(recent) == 7
    for task, last, in_a_day in recent:
        assert last > WEDNESDAY - timedelta(hours=2), task
        assert in_a_day >= 10, task
    ((oldest,),) = rows(
        url,
        """SELECT min(completed_at) FROM tracks JOIN audio_tasks USING (spotify_track_id)
           WHERE stage = 'audio_ready' AND task_type = 'download'""",
    )
    assert timedelta(hours=2) < WEDNESDAY - oldest < timedelta(days=2)


@pytest.mark.parametrize("anchor", [WEDNESDAY, SUNDAY])
def test_nights_and_weekends_are_quiet_whatever_the_anchor(server: Url, anchor: datetime) -> None:
    url = database(server, "calendar")
    seed(url, anchor=anchor)
    rate = """SELECT count(*) FILTER (WHERE {0})::float
                     / (SELECT count(*) FROM generate_series(
                            %(anchor)s - interval '60 days', %(anchor)s, '1 hour') AS hours (at)
                        WHERE {1})
              FROM (SELECT completed_at AT TIME ZONE 'UTC' AS at FROM audio_tasks) AS done"""

    def per_hour(condition: str) -> float:
        hours = condition.replace("at)", "at AT TIME ZONE 'UTC')")
        return float(rows(url, rate.format(condition, hours), anchor=anchor)[0][0])

    weekday, weekend = "extract(isodow FROM at) < 6", "extract(isodow FROM at) >= 6"
    day, night = "extract(hour FROM at) BETWEEN 10 AND 17", "extract(hour FROM at) < 6"
    assert per_hour(weekend) < 0.7 * per_hour(weekday)
    assert per_hour(night) < 0.6 * per_hour(day)


@pytest.mark.parametrize("variant", ["a", "b"])
def test_counts_depend_on_the_arguments_only(server: Url, variant: str) -> None:
    url = database(server, "repeated")
    seed(url, variant, tracks=2000, anchor=WEDNESDAY)
    content, counted = rows(url, CONTENT), states(url, WEDNESDAY)
    summary = "SELECT category, task_type, status, count FROM task_summary ORDER BY 1, 2, 3"
    summed = rows(url, summary)
    seed(url, variant, tracks=2000, anchor=SUNDAY)
    assert states(url, SUNDAY) == counted
    assert rows(url, summary) == summed
    assert rows(url, CONTENT) != content
    seed(url, variant, tracks=2000, anchor=WEDNESDAY)
    assert rows(url, CONTENT) == content


def test_size_changes_neither_the_fifty_nor_the_share_that_waits(server: Url) -> None:
    url = database(server, "size")
    for tracks in (1000, 60_000):
        seed(url, tracks=tracks, anchor=WEDNESDAY)
        counted = {(row[0], row[3]): row[4] for row in states(url, WEDNESDAY)}
        assert sum(n for (stage, _), n in counted.items() if stage == "audio_ready") == 50
        assert counted["audio_ready", "missing"] == 50
    waiting = sum(n for (_, state), n in counted.items() if state == "missing")
    assert 0.005 < waiting / 60_000 < 0.02


@pytest.mark.parametrize("variant", ["a", "b"])
def test_seeding_leaves_the_schema_as_it_is_created(server: Url, variant: str) -> None:
    fresh, filled = database(server, "fresh"), database(server, "filled")
    with psycopg.connect(fresh) as connection:
        create_schema(connection, variant)
    seed(filled, variant, tracks=1000)
    assert rows(filled, DEFINITIONS) == rows(fresh, DEFINITIONS)


def test_migrating_a_populated_database_gives_variant_b_of_the_same_work(
    server: Url,
) -> None:
    url, fresh = database(server, "migrated"), database(server, "fresh")
    with psycopg.connect(fresh) as connection:
        create_schema(connection, "b")
    seed(url, "a", tracks=1000, anchor=WEDNESDAY)
    columns = (
        "SELECT id, spotify_track_id, task_type, status, updated_at FROM audio_tasks ORDER BY 1"
    )
    content, counted = rows(url, columns), states(url, WEDNESDAY)
    with psycopg.connect(url) as connection:
        migrate(connection)
    assert rows(url, columns) == content
    assert states(url, WEDNESDAY) == counted
    assert rows(url, DEFINITIONS) == rows(fresh, DEFINITIONS)
    assert rows(
        url, "SELECT DISTINCT subject_type, subject_id = spotify_track_id FROM audio_tasks"
    ) == [("track", True)]


def test_a_session_that_uses_the_tables_is_named(server: Url) -> None:
    url = database(server, "busy")
    seed(url, tracks=1000)
    with psycopg.connect(url, application_name="a notebook") as connection:
        connection.execute("SELECT FROM tracks LIMIT 1")
        with pytest.raises(DemoError, match=r"in use by pid \d+ \(a notebook, idle in transaction"):
            seed(url, tracks=1000)
    seed(url, tracks=1000)


def test_tables_that_no_seed_wrote_are_never_replaced(server: Url) -> None:
    url = database(server, "theirs")
    with psycopg.connect(url) as connection:
        create_schema(connection, "a")
        connection.execute("INSERT INTO tracks VALUES ('one', NULL, 'Song', '[]')")
    with pytest.raises(DemoError, match="no demo's"):
        seed(url)
    assert rows(url, "SELECT spotify_track_id FROM tracks") == [("one",)]
    assert seeded(url) is None


def test_arguments_that_will_not_do_are_refused(server: Url) -> None:
    url = database(server, "untouched")
    for arguments in (
        {"variant": "c"},
        {"tracks": 999},
        {"tracks": "6000"},
        {"anchor": datetime(2025, 11, 19)},
    ):
        with pytest.raises(InputError):
            seed(url, **arguments)  # type: ignore[arg-type]
    with pytest.raises(DemoError, match="cannot seed"):
        seed(server("seed_missing"))
    assert seeded(url) is None
