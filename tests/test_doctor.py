"""The doctor: each thing that can be wrong is found, and what it says to do mends it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import sql

from conftest import Bench, Fresh
from examining import examine, fixes, one, option, remedy
from kinds import NO_ZONE
from operating import command, operable
from queue_insights import doctor
from queue_insights.errors import DatabaseError


@pytest.fixture
def plain(fresh: Fresh) -> Bench:
    """What does not depend on the variant."""
    return fresh("a")


@pytest.fixture
def reader(plain: Bench) -> Iterator[tuple[str, str]]:
    """A role that may read the two tables and do nothing else: its name as SQL writes it, and the
    URL with which to be it."""
    name = f'ro"le {plain.connection.info.dbname}'
    quoted = sql.Identifier(name).as_string(plain.connection)
    plain.sql(f"CREATE ROLE {quoted}; GRANT SELECT ON tracks, audio_tasks TO {quoted}")
    yield quoted, option(plain.url, "role%3D") + name.replace(" ", "\\%20").replace('"', "%22")
    plain.sql(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")


def mended(plain: Bench, url: str = "", write_url: str | None = None) -> str:
    """The one thing to fix, after which its statement has left none."""
    (line,) = fixes(examine(url or plain.url, write_url))
    plain.sql(remedy(line))
    assert fixes(examine(url or plain.url, write_url)) == []
    return line


def test_in_a_healthy_database_there_is_nothing_to_fix(bench: Bench) -> None:
    lines = examine(bench.url)
    assert fixes(lines) == []
    kind = {"a": "variant A (by track)", "b": "variant B (by subject)"}[bench.variant]
    version = bench.sql("SHOW server_version")[0][0].split()[0]
    for parts in (
        ("tables: public.tracks and public.audio_tasks", kind),
        ("reads: ", f"Postgres {version}"),
        *((part,) for part in ("privileges: ", "clock: ", "stages: the table", "actions: ")),
        *((part,) for part in ("none writes to", "view task_summary", "view audio_progress")),
        *((part,) for part in (": tracks_stage_idx", ": audio_tasks_task_type_status_idx")),
    ):
        assert one(lines, *parts).startswith("ok ")
    others = [line for line in lines if "does not name" in line]
    assert len(others) == (bench.variant == "b")
    assert all("translation_quiz_ready, trivia_ready" in line for line in others)


def test_the_command_prints_a_line_each_and_exits_1_if_there_is_something_to_fix(
    plain: Bench,
) -> None:
    lengths = []
    for fix in (0, 1):
        done = command(plain.url, "doctor", "--pipeline", "karaoke")
        assert done.exit_code == len(fixes(done.stdout.splitlines())) == fix
        assert all(re.match(r"(ok  |note|fix ) \S", line) for line in done.stdout.splitlines())
        lengths.append(done.stdout.count("\n"))
        plain.sql("DROP INDEX IF EXISTS tracks_stage_idx")
    assert lengths[0] == lengths[1]


def test_a_reader_needs_select_which_is_granted_by_the_statement_given(
    plain: Bench, reader: tuple[str, str]
) -> None:
    name, url = reader
    lines = examine(url)
    assert fixes(lines) == []
    assert "may SELECT from both tables" in one(lines, "privileges: ")
    assert one(lines, "actions: ").startswith("note ")
    for table in ("tracks", "audio_tasks"):
        plain.sql(f"REVOKE SELECT ON {table} FROM {name}")
        with pytest.raises(DatabaseError, match=f"denied for table {table}; ask the owner for SEL"):
            operable(url).backlog()
        assert remedy(mended(plain, url)) == f"GRANT SELECT ON public.{table} TO {name};"


def test_what_actions_lack_is_to_be_fixed_where_there_is_a_url_to_write_with(
    plain: Bench, reader: tuple[str, str]
) -> None:
    name, write = reader
    line = mended(plain, plain.url, write)
    assert line.startswith("fix  actions: ")
    for grant in (
        "UPDATE (updated_at) ON public.tracks",
        "INSERT, UPDATE, DELETE ON public.audio_tasks",
        "USAGE ON SEQUENCE public.audio_tasks_id_seq",
        f"CREATE ON DATABASE {plain.connection.info.dbname}",
    ):
        assert f"GRANT {grant} TO {name};" in line


def test_a_write_connection_that_is_read_only_by_default_is_named(plain: Bench) -> None:
    (line,) = fixes(examine(plain.url, option(plain.url, "default_transaction_read_only%3Don")))
    assert "read-only" in line
    assert remedy(line).endswith("SET default_transaction_read_only = off;")


def test_a_clock_that_differs_by_more_than_two_seconds_is_to_be_fixed(
    plain: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, side in ((1, None), (9, "ahead of"), (-9, "behind")):
        there = timedelta(seconds=seconds)
        monkeypatch.setattr(doctor, "now", lambda there=there: datetime.now(UTC) - there)
        line = one(examine(plain.url), "clock: ")
        assert line.startswith("fix" if side else "ok")
        said = rf"the server is (\d+\.\d) s {side} this machine: set both"
        # On a busy machine asking takes a while.
        assert [7 < float(found) < 11 for found in re.findall(said, line)] == [True] * bool(side)


def test_what_is_absent_or_odd_and_rows_that_no_history_shows_are_noted(bench: Bench) -> None:
    assert one(examine(bench.url), "history: ").startswith("ok ")
    bench.sql("DROP VIEW task_summary; ALTER TABLE tracks DROP CONSTRAINT tracks_stage_check")
    bench.task(bench.track("undated", "ready"), "align", "completed")
    bench.task(bench.track("left", "ready"), "align", "running")
    bench.task(bench.track("at work", "audio_ready"), "align", "running")
    bench.sql("CREATE TABLE old_tasks () INHERITS (audio_tasks)")
    bench.sql(NO_ZONE + "UPDATE audio_tasks SET created_at = now() + interval '1 h'")
    lines = examine(bench.url)
    for note in (
        "rows of those that inherit from public.audio_tasks are left out",
        "public.tracks.updated_at has no time zone, so it is read as UTC",
        "3 rows are from the future",
        "dashboards: no view task_summary",
        "stages: no CHECK on public.tracks.stage",
        "1 completed rows without completed_at and 1 running or skipped ones",
    ):
        assert one(lines, note).startswith("note ")
    assert fixes(lines) == []


ENQUEUE = """
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN {body} RETURN NULL; END $$;
    CREATE TRIGGER {name} AFTER INSERT OR UPDATE OF stage ON tracks
        FOR EACH ROW EXECUTE FUNCTION {name}()
"""
INSERT = """
    INSERT  INTO public."audio_tasks" (spotify_track_id, task_type) VALUES ('x', 'align');
"""
HARMLESS = "PERFORM 1 FROM audio_tasks; UPDATE audio_tasks_log SET x = 1;"


def test_triggers_that_insert_rows_are_named_and_two_are_one_too_many(plain: Bench) -> None:
    for name, body in (("enqueue_track", INSERT), ("harmless", HARMLESS)):
        plain.sql(ENQUEUE.format(name=name, body=body))
    lines = examine(plain.url)
    assert fixes(lines) == []
    line = one(lines, "writes to public.audio_tasks")
    assert line.startswith("ok   trigger enqueue_track on public.tracks")
    assert "function enqueue_track()" in line
    plain.sql(ENQUEUE.format(name='"Second one"', body=INSERT))
    assert '"Second one", enqueue_track all insert' in mended(plain)


def test_what_keeps_it_from_looking_further_is_the_last_thing_said(plain: Bench) -> None:
    plain.sql("ALTER TABLE audio_tasks RENAME attempts TO tries")
    lines = examine(plain.url)
    assert fixes(lines) == [lines[-1]]
    assert "tasks.attempts: table 'audio_tasks' has no column 'attempts'" in lines[-1]


def test_a_server_that_is_unreachable_or_too_old_is_one_line(
    plain: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = "postgresql://u:secret@127.0.0.1:1/db"
    (line,) = examine(elsewhere)
    assert re.match("fix  reads: db on 127.0.0.1:1: .*check that the server runs", line)
    assert "secret" not in line
    lines = examine(plain.url, elsewhere)  # which hides nothing else
    (line,) = fixes(lines)
    assert line.startswith("fix  actions: db on 127.0.0.1:1: ")
    assert one(lines, "tracks_stage_idx").startswith("ok ")
    monkeypatch.setattr(doctor, "OLDEST_SUPPORTED", 99)
    (line,) = fixes(examine(plain.url))
    assert "is too old: 99 is the oldest supported" in line


# --- indexes -------------------------------------------------------------------------------------


def test_an_invalid_index_is_reindexed_and_a_missing_one_made(bench: Bench) -> None:
    for index in ("tracks_stage_idx", "audio_tasks_task_type_status_idx"):
        invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass"
        bench.sql(invalid, index)  # as a failed CREATE INDEX CONCURRENTLY leaves it
        assert remedy(mended(bench)) == f"REINDEX INDEX CONCURRENTLY {index};"
        bench.sql(f"DROP INDEX {index}")
        assert re.match("CREATE INDEX CONCURRENTLY .* WHERE ", remedy(mended(bench)))


def test_an_index_counts_where_the_planner_can_search_it(plain: Bench) -> None:
    plain.sql("DROP INDEX tracks_stage_idx")
    for definition, serves in {
        "(stage)": True,
        "(stage, created_at DESC)": True,
        "(stage) WHERE stage <> 'ready'": True,
        "(title, stage)": False,
        "(stage) WHERE stage NOT IN ('ready', 'enhanced')": False,
        "(lower(stage))": False,
    }.items():
        plain.sql(f"DROP INDEX IF EXISTS other; CREATE INDEX other ON tracks {definition}")
        assert (fixes(examine(plain.url)) == []) == serves, definition


def test_where_history_is_long_the_indexes_advised_satisfy_it(
    plain: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LONG_HISTORY", 50)
    for i in range(50):
        at = sql.SQL("now() - {} * interval '1 h'").format(sql.Literal(100 - i))
        plain.task(plain.track(f"t{i:02}", "ready"), "align", "completed", completed_at=at)
    plain.sql("ANALYZE audio_tasks")
    lines = [line for line in examine(plain.url) if "history is long (50 rows)" in line]
    assert [line[:5] for line in lines] == ["note "] * 2
    assert "USING brin (completed_at)" in remedy(lines[0])
    for line in lines:
        plain.sql(remedy(line))
    assert not any("history is long" in line for line in examine(plain.url))
