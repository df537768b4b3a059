"""The doctor: each thing that can be wrong is found, and what it says to do mends it."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from conftest import Bench
from examining import examine, fixes, one, option, remedy
from operating import operable
from queue_insights import doctor, pipeline
from queue_insights.cli import main
from queue_insights.database import READ_URL, TIMEOUT, Database
from queue_insights.errors import DatabaseError
from queue_insights.queue import Queue


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    return fresh("a")


@pytest.fixture(params=["a", "b"])
def either(fresh: Callable[[str], Bench], request: pytest.FixtureRequest) -> Bench:
    """What depends on the variant runs on both."""
    return fresh(request.param)


@pytest.fixture
def reader(bench: Bench) -> Iterator[tuple[str, str]]:
    """A role that may read the two tables and do nothing else: its name as SQL writes it, and the
    URL with which to be it."""
    name = f'ro"le {bench.connection.info.dbname}'
    quoted = sql.Identifier(name).as_string(bench.connection)
    bench.sql(f"CREATE ROLE {quoted}; GRANT SELECT ON tracks, audio_tasks TO {quoted}")
    yield quoted, option(bench.url, "role%3D") + name.replace(" ", "\\%20").replace('"', "%22")
    bench.sql(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")


def test_in_a_healthy_database_there_is_nothing_to_fix(either: Bench) -> None:
    lines = examine(either.url)
    assert fixes(lines) == []
    kind = {"a": "variant A (by track)", "b": "variant B (by subject)"}[either.variant]
    assert one(lines, "tables: public.tracks and public.audio_tasks", kind).startswith("ok ")
    version = either.sql("SHOW server_version")[0][0].split()[0]
    assert one(lines, "reads: ", f"Postgres {version}").startswith("ok ")
    for line in ("privileges: ", "clock: ", "stages: the table", "actions: ", "none writes to"):
        assert one(lines, line).startswith("ok ")
    for index in ("tracks_stage_idx", "audio_tasks_task_type_status_idx"):
        assert one(lines, f": {index}").startswith("ok   indexes: ")
    for view in ("task_summary", "audio_progress"):
        assert one(lines, f"view {view}").startswith("ok ")
    others = [line for line in lines if "does not name" in line]
    assert len(others) == (either.variant == "b")
    assert all("translation_quiz_ready, trivia_ready" in line for line in others)


def test_the_command_prints_a_line_each_and_exits_1_if_there_is_something_to_fix(
    bench: Bench,
) -> None:
    runner = CliRunner(env={READ_URL: bench.url})
    healthy = runner.invoke(main, ["doctor", "--pipeline", "karaoke"])
    assert healthy.exit_code == 0
    assert all(re.match(r"(ok  |note|fix ) \S", line) for line in healthy.stdout.splitlines())
    bench.sql("DROP INDEX tracks_stage_idx")
    ailing = runner.invoke(main, ["doctor"])
    assert ailing.exit_code == 1
    assert len(ailing.stdout.splitlines()) == len(healthy.stdout.splitlines())
    assert len(fixes(ailing.stdout.splitlines())) == 1


@pytest.mark.parametrize("table", ["tracks", "audio_tasks"])
def test_a_reader_needs_select_which_is_granted_by_the_statement_given(
    bench: Bench, reader: tuple[str, str], table: str
) -> None:
    name, url = reader
    lines = examine(url)
    assert fixes(lines) == []
    assert "may SELECT from both tables" in one(lines, "privileges: ")
    assert one(lines, "actions: ").startswith("note ")
    bench.sql(f"REVOKE SELECT ON {table} FROM {name}")
    (line,) = fixes(examine(url))
    assert remedy(line) == f"GRANT SELECT ON public.{table} TO {name};"
    with pytest.raises(DatabaseError, match=f"denied for table {table}; ask the owner for SELECT"):
        operable(url).backlog()
    bench.sql(remedy(line))
    assert fixes(examine(url)) == []


def test_what_actions_lack_is_to_be_fixed_where_there_is_a_url_to_write_with(
    bench: Bench, reader: tuple[str, str]
) -> None:
    name, write = reader
    (line,) = fixes(examine(bench.url, write))
    assert line.startswith("fix  actions: ")
    assert f"GRANT UPDATE (updated_at) ON public.tracks TO {name};" in line
    assert f"GRANT INSERT, UPDATE, DELETE ON public.audio_tasks TO {name};" in line
    assert f"GRANT USAGE ON SEQUENCE public.audio_tasks_id_seq TO {name};" in line
    assert f"GRANT CREATE ON DATABASE {bench.connection.info.dbname} TO {name};" in line
    bench.sql(line[line.index("GRANT") :])
    assert fixes(examine(bench.url, write)) == []
    bench.sql("CREATE SCHEMA queue_insights; CREATE TABLE queue_insights.runs (run int)")
    line = one(examine(write), "actions: ")
    assert line.startswith("note ")
    assert f"GRANT USAGE ON SCHEMA queue_insights TO {name};" in line
    bench.sql(f"GRANT USAGE ON SCHEMA queue_insights TO {name}")
    wanted = f"GRANT SELECT, INSERT, UPDATE, DELETE ON queue_insights.runs TO {name};"
    assert wanted in one(examine(write), "actions: ")


def test_a_write_connection_that_is_read_only_by_default_is_named(bench: Bench) -> None:
    (line,) = fixes(examine(bench.url, option(bench.url, "default_transaction_read_only%3Don")))
    assert "read-only" in line
    assert remedy(line).endswith("SET default_transaction_read_only = off;")


@pytest.mark.parametrize(("seconds", "level"), [(1, "ok"), (9, "fix"), (-9, "fix")])
def test_a_clock_that_differs_by_more_than_two_seconds_is_to_be_fixed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: int, level: str
) -> None:
    monkeypatch.setattr(doctor, "now", lambda: datetime.now(UTC) - timedelta(seconds=seconds))
    line = one(examine(bench.url), "clock: ")
    assert line.startswith(level)
    if level == "fix":
        side = "ahead of" if seconds > 0 else "behind"
        (found,) = re.findall(rf"the server is (\d+\.\d) s {side} this machine: set both", line)
        assert 7 < float(found) < 11  # on a busy machine asking takes a while


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        ("DROP VIEW task_summary", "dashboards: no view task_summary"),
        (
            "ALTER TABLE tracks DROP CONSTRAINT tracks_stage_check",
            "stages: no CHECK on public.tracks.stage",
        ),
    ],
)
def test_what_is_absent_is_noted(bench: Bench, breaks: str, said: str) -> None:
    bench.sql(breaks)
    lines = examine(bench.url)
    assert one(lines, said).startswith("note ")
    assert fixes(lines) == []


def test_rows_that_no_history_shows_are_counted(either: Bench) -> None:
    assert one(examine(either.url), "history: ").startswith("ok ")
    either.task(either.track("undated", "ready"), "align", "completed")
    either.task(either.track("left", "ready"), "align", "running")
    either.task(either.track("at work", "audio_ready"), "align", "running")
    line = one(examine(either.url), "history: ")
    assert line.startswith("note ")
    assert "1 completed rows without completed_at and 1 running or skipped ones" in line


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


def test_triggers_that_insert_rows_are_named_disabled_ones_noted_and_two_one_too_many(
    bench: Bench,
) -> None:
    for name, body in (("enqueue_track", INSERT), ("harmless", HARMLESS)):
        bench.sql(ENQUEUE.format(name=name, body=body))
    lines = examine(bench.url)
    assert fixes(lines) == []
    line = one(lines, "writes to public.audio_tasks")
    assert line.startswith("ok   trigger enqueue_track on public.tracks")
    assert "function enqueue_track()" in line
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER enqueue_track")
    line = one(examine(bench.url), "enqueue_track on public.tracks")
    assert line.startswith("note ")
    bench.sql(remedy(line))
    assert one(examine(bench.url), "enqueue_track on public.tracks").startswith("ok ")
    bench.sql(ENQUEUE.format(name='"Second one"', body=INSERT))
    (line,) = fixes(examine(bench.url))
    assert '"Second one", enqueue_track all insert' in line
    bench.sql(remedy(line))
    assert fixes(examine(bench.url)) == []


def test_a_table_that_does_not_fit_is_the_last_thing_said(bench: Bench) -> None:
    bench.sql("ALTER TABLE audio_tasks RENAME attempts TO tries")
    lines = examine(bench.url)
    assert fixes(lines) == [lines[-1]]
    assert "tasks.attempts: table 'audio_tasks' has no column 'attempts'" in lines[-1]


def test_a_server_that_is_unreachable_is_one_line(bench: Bench) -> None:
    elsewhere = "postgresql://u:secret@127.0.0.1:1/db"
    (line,) = examine(elsewhere)
    assert line.startswith("fix  reads: db on 127.0.0.1:1: ")
    assert "check that the server runs" in line
    assert "secret" not in line
    lines = examine(bench.url, elsewhere)  # which hides nothing else
    (line,) = fixes(lines)
    assert line.startswith("fix  actions: db on 127.0.0.1:1: ")
    assert one(lines, "tracks_stage_idx").startswith("ok ")


def test_tables_that_somebody_locked_are_the_last_thing_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TIMEOUT, "0.2s")
    with psycopg.connect(bench.url) as other:
        other.execute("LOCK TABLE audio_tasks IN ACCESS EXCLUSIVE MODE")
        lines = examine(bench.url)
    assert fixes(lines) == [lines[-1]]
    assert "statement timeout" in lines[-1]


def test_a_server_that_is_too_old_is_to_be_fixed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "OLDEST_SUPPORTED", 99)
    (line,) = fixes(examine(bench.url))
    assert "is too old: 99 is the oldest supported" in line


# --- indexes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", ["tracks_stage_idx", "audio_tasks_task_type_status_idx"])
def test_an_invalid_index_is_reindexed_and_a_missing_one_made(either: Bench, index: str) -> None:
    invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass"
    either.sql(invalid, index)  # as a failed CREATE INDEX CONCURRENTLY leaves it
    (line,) = fixes(examine(either.url))
    assert remedy(line) == f"REINDEX INDEX CONCURRENTLY {index};"
    either.sql(remedy(line))
    assert fixes(examine(either.url)) == []
    either.sql(f"DROP INDEX {index}")
    (line,) = fixes(examine(either.url))
    assert remedy(line).startswith("CREATE INDEX CONCURRENTLY ")
    assert "WHERE" in remedy(line)
    either.sql(remedy(line))
    assert fixes(examine(either.url)) == []


@pytest.mark.parametrize(
    ("definition", "serves"),
    [
        ("(stage)", True),
        ("(stage, created_at DESC)", True),
        ("(stage) INCLUDE (title)", True),
        ("(stage) WHERE stage <> 'ready'", True),
        ("USING hash (stage)", True),
        ("(title, stage)", False),
        ("(stage) WHERE stage = 'audio_ready'", False),
        ("(stage) WHERE stage NOT IN ('ready', 'enhanced')", False),
        ("(lower(stage))", False),
    ],
)
def test_an_index_counts_where_the_planner_can_search_it(
    bench: Bench, definition: str, serves: bool
) -> None:
    bench.sql("DROP INDEX tracks_stage_idx")
    bench.sql(f"CREATE INDEX other ON tracks {definition}")
    assert (fixes(examine(bench.url)) == []) == serves


def test_names_in_statements_are_quoted(bench: Bench, tmp_path: Path) -> None:
    bench.sql("""
        DROP INDEX tracks_stage_idx;
        ALTER TABLE tracks RENAME stage TO "st""age; --";
        ALTER TABLE tracks RENAME TO "Track's 100%";
        ALTER TABLE audio_tasks RENAME TO "order";
        CREATE SCHEMA "my schema";
        ALTER TABLE "Track's 100%" SET SCHEMA "my schema"
    """)
    text = (pipeline.shipped("params") / "pipelines" / "karaoke.yaml").read_text()
    text = text.replace("table: tracks ", """table: '"my schema"."Track''s 100%"'""")
    text = text.replace("stage: stage\n", """stage: 'st"age; --'\n""", 1)
    text = text.replace("table: audio_tasks", "table: order")
    (tmp_path / "file.yaml").write_text(text)
    queue = Queue(Database(bench.url), pipeline.load(tmp_path / "file.yaml"))
    lines = list(map(str, doctor.examine(queue)))
    assert one(lines, "stages: the table allows").startswith("ok ")
    (line,) = fixes(lines)
    assert """ON "my schema"."Track's 100%" ("st""age; --")""" in line
    bench.sql(remedy(line))
    assert fixes(list(map(str, doctor.examine(queue)))) == []


def completed(bench: Bench, order: int) -> None:
    for number in range(50):
        at = sql.SQL("now() - {} * interval '1 h'").format(sql.Literal(100 - number * order % 50))
        track = bench.track(f"t{number:02}", "ready")
        bench.task(track, "align", "completed", completed_at=at)
    bench.sql("ANALYZE audio_tasks")


def advised(bench: Bench) -> list[str]:
    return [line for line in examine(bench.url) if "history is long" in line]


def test_where_history_is_long_two_more_indexes_are_advised(
    either: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed(either, 1)
    assert advised(either) == []
    monkeypatch.setattr(doctor, "LONG_HISTORY", 50)
    lines = advised(either)
    assert all(line.startswith("note ") and "(50 rows)" in line for line in lines)
    assert remedy(lines[0]) == (
        "CREATE INDEX CONCURRENTLY ON public.audio_tasks USING brin (completed_at) "
        "WITH (pages_per_range = 32) WHERE completed_at IS NOT NULL;"
    )
    for line in lines:
        either.sql(remedy(line))
    assert (len(lines), advised(either)) == (2, [])


def test_no_brin_index_is_advised_where_rows_do_not_lie_in_the_order_of_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LONG_HISTORY", 50)
    completed(bench, 29)
    (line,) = advised(bench)
    assert remedy(line).endswith("(task_type) WHERE completed_at IS NULL;")
