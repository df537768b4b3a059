"""The doctor: each thing that can be wrong is found, and what it says to do mends it."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from conftest import Bench
from examining import examine, fixes, one, remedy
from queue_insights import doctor
from queue_insights.cli import main
from queue_insights.database import READ_URL, TIMEOUT, WRITE_URL


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    return fresh("a")


@pytest.fixture(params=["a", "b"])
def either(fresh: Callable[[str], Bench], request: pytest.FixtureRequest) -> Bench:
    """What depends on the variant runs on both."""
    return fresh(request.param)


@pytest.fixture
def reader(bench: Bench) -> Iterator[str]:
    """A role that may read the two tables and do nothing else; gives its URL."""
    name = "reader_" + bench.connection.info.dbname[5:]
    bench.sql(f"CREATE ROLE {name}; GRANT SELECT ON tracks, audio_tasks TO {name}")
    yield f"{bench.url}{'&' if '?' in bench.url else '?'}options=-crole%3D{name}"
    bench.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_in_a_healthy_database_there_is_nothing_to_fix(either: Bench) -> None:
    lines = examine(either.url)
    assert fixes(lines) == []
    kind = {"a": "variant A (by track)", "b": "variant B (by subject)"}[either.variant]
    assert one(lines, "tables: public.tracks and public.audio_tasks", kind).startswith("ok ")
    version = either.sql("SHOW server_version")[0][0].split()[0]
    assert one(lines, "reads: ", f"Postgres {version}").startswith("ok ")
    for line in ("privileges: ", "clock: ", "stages: the table", "actions: ", "none writes to"):
        assert one(lines, line).startswith("ok ")
    for index in ("tracks_stage_idx", "tracks_pkey", "audio_tasks_task_type_status_idx"):
        assert one(lines, f": {index}").startswith("ok   indexes: ")
    for view in ("task_summary", "audio_progress"):
        assert one(lines, f"view {view}").startswith("ok ")


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


def test_a_least_privileged_reader_has_nothing_to_fix(bench: Bench, reader: str) -> None:
    lines = examine(reader)
    assert fixes(lines) == []
    role = "reader_" + bench.connection.info.dbname[5:]
    assert f"privileges: {role} may SELECT from both tables" in one(lines, "privileges: ")
    assert one(lines, "actions: ").startswith("note ")


@pytest.mark.parametrize("table", ["tracks", "audio_tasks"])
def test_a_missing_select_is_granted_by_the_statement_given(
    bench: Bench, reader: str, table: str
) -> None:
    role = "reader_" + bench.connection.info.dbname[5:]
    bench.sql(f"REVOKE SELECT ON {table} FROM {role}")
    (line,) = fixes(examine(reader))
    assert remedy(line) == f"GRANT SELECT ON public.{table} TO {role};"
    bench.sql(remedy(line))
    assert fixes(examine(reader)) == []


def test_what_actions_lack_is_to_be_fixed_where_there_is_a_url_to_write_with(
    bench: Bench, reader: str
) -> None:
    (line,) = fixes(examine(bench.url, reader))
    database = bench.connection.info.dbname
    role = f"reader_{database[5:]}"
    assert line.startswith("fix  actions: ")
    assert f"GRANT UPDATE (updated_at) ON public.tracks TO {role};" in line
    assert f"GRANT INSERT, UPDATE, DELETE ON public.audio_tasks TO {role};" in line
    assert f"GRANT USAGE ON SEQUENCE public.audio_tasks_id_seq TO {role};" in line
    assert f"GRANT CREATE ON DATABASE {database} TO {role};" in line
    bench.sql(line[line.index("GRANT") :])
    assert fixes(examine(bench.url, reader)) == []


def test_a_ledger_that_the_role_may_not_use_is_named(bench: Bench, reader: str) -> None:
    bench.sql("CREATE SCHEMA queue_insights; CREATE TABLE queue_insights.runs (run int)")
    role = f"reader_{bench.connection.info.dbname[5:]}"
    line = one(examine(reader), "actions: ")
    assert line.startswith("note ")
    assert f"GRANT USAGE ON SCHEMA queue_insights TO {role};" in line
    bench.sql(f"GRANT USAGE ON SCHEMA queue_insights TO {role}")
    wanted = f"GRANT SELECT, INSERT, UPDATE, DELETE ON queue_insights.runs TO {role};"
    assert wanted in one(examine(reader), "actions: ")


def test_a_write_connection_that_is_read_only_by_default_is_named(bench: Bench) -> None:
    separator = "&" if "?" in bench.url else "?"
    write = f"{bench.url}{separator}options=-cdefault_transaction_read_only%3Don"
    (line,) = fixes(examine(bench.url, write))
    assert "read-only" in line
    assert remedy(line).endswith("SET default_transaction_read_only = off;")


@pytest.mark.parametrize(("seconds", "level"), [(0, "ok"), (1, "ok"), (9, "fix"), (-9, "fix")])
def test_a_clock_that_differs_by_more_than_two_seconds_is_to_be_fixed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: int, level: str
) -> None:
    monkeypatch.setattr(doctor, "now", lambda: datetime.now(UTC) - timedelta(seconds=seconds))
    line = one(examine(bench.url), "clock: ")
    assert line.startswith(level)
    if level == "fix":
        side = "ahead of" if seconds > 0 else "behind"
        assert re.search(rf"the server is (8\.9|9\.0|9\.1) s {side} this machine: set both", line)


def test_dashboards_that_are_absent_are_noted(bench: Bench) -> None:
    bench.sql("DROP VIEW task_summary")
    lines = examine(bench.url)
    assert one(lines, "no view task_summary").startswith("note ")
    assert one(lines, "view audio_progress").startswith("ok ")
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


def enqueue(bench: Bench, name: str, body: str = INSERT) -> None:
    bench.sql(ENQUEUE.format(name=name, body=body))


def test_a_trigger_that_writes_task_rows_is_named_and_two_are_one_too_many(bench: Bench) -> None:
    enqueue(bench, "enqueue_track")
    enqueue(bench, "harmless", "PERFORM 1 FROM audio_tasks; UPDATE audio_tasks_log SET x = 1;")
    lines = examine(bench.url)
    assert fixes(lines) == []
    line = one(lines, "writes to public.audio_tasks")
    assert line.startswith("ok   trigger enqueue_track on public.tracks")
    assert "function enqueue_track()" in line
    enqueue(bench, '"Second one"')
    (line,) = fixes(examine(bench.url))
    assert '"Second one", enqueue_track all insert' in line
    bench.sql(remedy(line))
    assert fixes(examine(bench.url)) == []


def test_a_disabled_trigger_is_noted_with_how_to_enable_it(bench: Bench) -> None:
    enqueue(bench, "enqueue_track")
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER enqueue_track")
    line = one(examine(bench.url), "enqueue_track on public.tracks")
    assert line.startswith("note ")
    bench.sql(remedy(line))
    assert one(examine(bench.url), "enqueue_track on public.tracks").startswith("ok ")


@pytest.mark.parametrize("table", ["tracks", "audio_tasks"])
def test_a_table_whose_updated_at_nobody_keeps_is_noted(bench: Bench, table: str) -> None:
    bench.sql(f"DROP TRIGGER {table}_set_updated_at ON {table}")
    lines = examine(bench.url)
    assert one(lines, f"none keeps public.{table}.updated_at").startswith("note ")
    assert one(lines, ": one keeps ").startswith("ok ")


def test_a_table_without_a_check_on_stages_is_noted(bench: Bench) -> None:
    bench.sql("ALTER TABLE tracks DROP CONSTRAINT tracks_stage_check")
    assert one(examine(bench.url), "stages: ").startswith(
        "note stages: no CHECK on public.tracks.stage"
    )


def test_stages_that_the_pipeline_does_not_know_are_noted(either: Bench) -> None:
    found = [line for line in examine(either.url) if "does not name" in line]
    if either.variant == "a":
        assert found == []
    else:
        (line,) = found
        assert line.startswith("note ")
        assert "translation_quiz_ready, trivia_ready" in line
        assert "audio_ready" not in line


def test_a_table_that_does_not_fit_is_the_last_thing_said(bench: Bench) -> None:
    bench.sql("ALTER TABLE audio_tasks RENAME attempts TO tries")
    lines = examine(bench.url)
    assert fixes(lines) == [lines[-1]]
    assert "tasks.attempts: table 'audio_tasks' has no column 'attempts'" in lines[-1]


def test_an_unreachable_server_is_one_line() -> None:
    (line,) = examine("postgresql://u:secret@127.0.0.1:1/db")
    assert line.startswith("fix  reads: db on 127.0.0.1:1: ")
    assert "check that the server runs" in line
    assert "secret" not in line


def test_a_server_to_write_to_that_is_unreachable_hides_nothing_else(bench: Bench) -> None:
    lines = examine(bench.url, "postgresql://u:secret@127.0.0.1:1/db")
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


def test_a_url_that_cannot_be_used_is_an_error_and_no_finding() -> None:
    env = {READ_URL: "postgresql://u:p@q@h/db", WRITE_URL: ""}
    result = CliRunner(env=env).invoke(main, ["doctor"])
    assert (result.exit_code, result.stdout) == (2, "")


def test_quoting_of_roles(bench: Bench) -> None:
    name = f'ro"le {bench.connection.info.dbname}'
    role = sql.Identifier(name)
    bench.connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        url = f"{bench.url}{'&' if '?' in bench.url else '?'}options=-crole%3D"
        (line,) = fixes(examine(url + name.replace(" ", "\\%20").replace('"', "%22")))
        statements = line[line.index("GRANT") :]
        assert 'TO "ro""le ' in statements
        bench.sql(statements)
        assert fixes(examine(url + name.replace(" ", "\\%20").replace('"', "%22"))) == []
    finally:
        bench.connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))
