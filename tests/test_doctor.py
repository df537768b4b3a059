"""The doctor: each thing that can be wrong is found, and what it says to do mends it."""

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from conftest import Bench
from queue_insights import demo, doctor, pipeline
from queue_insights.cli import main
from queue_insights.database import READ_URL, TIMEOUT, WRITE_URL, Database, Moment
from queue_insights.queue import Queue


def examine(url: str, write_url: str | None = None) -> list[str]:
    return list(map(str, doctor.doctor(Queue(Database(url, write_url), pipeline.load()))))


def one(lines: list[str], *parts: str) -> str:
    """The one line that has all of *parts*."""
    found = [line for line in lines if all(part in line for part in parts)]
    assert len(found) == 1, (parts, lines)
    return found[0]


def fixes(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("fix")]


def remedy(line: str) -> str:
    """The statement at the end of a finding."""
    found = re.search(r"\b(CREATE|REINDEX|GRANT|DROP|ALTER) .*;$", line)
    assert found, line
    return found[0]


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
    assert one(lines, "tables: tracks and audio_tasks", kind).startswith("ok ")
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


@pytest.mark.parametrize("index", ["tracks_stage_idx", "audio_tasks_task_type_status_idx"])
def test_a_missing_index_is_made_by_the_statement_given(either: Bench, index: str) -> None:
    either.sql(f"DROP INDEX {index}")
    (line,) = fixes(examine(either.url))
    assert remedy(line).startswith("CREATE INDEX CONCURRENTLY ")
    assert "WHERE" in remedy(line)
    either.sql(remedy(line))
    assert fixes(examine(either.url)) == []


def test_a_tracks_table_without_a_key_gets_one(bench: Bench) -> None:
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_fkey")
    bench.sql("ALTER TABLE tracks DROP CONSTRAINT tracks_pkey")
    (line,) = fixes(examine(bench.url))
    assert remedy(line).startswith("CREATE UNIQUE INDEX CONCURRENTLY ")
    bench.sql(remedy(line))
    assert fixes(examine(bench.url)) == []


@pytest.mark.parametrize(
    ("column", "index"),
    [
        ("stage", "tracks_stage_idx"),
        ("task_type", "audio_tasks_task_type_status_idx"),
        ("spotify_track_id", "tracks_pkey"),
        ("key", ""),
    ],
)
def test_an_invalid_index_does_not_count_and_is_mended_by_reindexing(
    either: Bench, column: str, index: str
) -> None:
    keys = {"a": "audio_tasks_spotify_track_id_task_type_key", "b": "audio_tasks_subject_task_key"}
    index = index or keys[either.variant]
    invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass"
    either.sql(invalid, index)  # as a failed CREATE INDEX CONCURRENTLY leaves it
    (line,) = fixes(examine(either.url))
    assert remedy(line) == f"REINDEX INDEX CONCURRENTLY {index};"
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


def test_two_indexes_that_only_together_serve_every_step_are_enough(bench: Bench) -> None:
    bench.sql("DROP INDEX tracks_stage_idx")
    bench.sql("CREATE INDEX one ON tracks (stage) WHERE stage = 'audio_ready'")
    bench.sql("CREATE INDEX two ON tracks (stage) WHERE stage <> 'audio_ready'")
    lines = examine(bench.url)
    assert fixes(lines) == []
    assert one(lines, "tracks (stage)").endswith(": one, two")


def test_names_in_statements_are_quoted(bench: Bench, tmp_path: Any) -> None:
    bench.sql("""
        DROP INDEX tracks_stage_idx;
        ALTER TABLE tracks RENAME stage TO "st""age; --";
        ALTER TABLE tracks RENAME TO "Track's 100%";
        ALTER TABLE audio_tasks RENAME TO "order";
        CREATE SCHEMA "my schema";
        ALTER TABLE "Track's 100%" SET SCHEMA "my schema"
    """)
    text = (pipeline.resources.folder("params") / "pipelines" / "karaoke.yaml").read_text()
    text = text.replace("table: tracks ", """table: '"my schema"."Track''s 100%"'""")
    text = text.replace("stage: stage\n", """stage: 'st"age; --'\n""", 1)
    text = text.replace("table: audio_tasks", "table: order")
    (tmp_path / "file.yaml").write_text(text)
    queue = Queue(Database(bench.url), pipeline.load(tmp_path / "file.yaml"))
    lines = list(map(str, doctor.doctor(queue)))
    assert one(lines, "stages: the table allows").startswith("ok ")
    (line,) = fixes(lines)
    assert """ON "my schema"."Track's 100%" ("st""age; --")""" in line
    bench.sql(remedy(line))
    assert fixes(list(map(str, doctor.doctor(queue)))) == []


def test_views_instead_of_tables_are_not_examined_for_indexes(bench: Bench) -> None:
    bench.sql("ALTER TABLE tracks RENAME TO t; CREATE VIEW tracks AS SELECT * FROM t")
    assert one(examine(bench.url), "tracks (stage)").startswith("note indexes: ")


@pytest.mark.parametrize("table", ["tracks", "audio_tasks"])
def test_a_missing_select_is_granted_by_the_statement_given(
    bench: Bench, reader: str, table: str
) -> None:
    role = "reader_" + bench.connection.info.dbname[5:]
    bench.sql(f"REVOKE SELECT ON {table} FROM {role}")
    lines = examine(reader)
    (line,) = fixes(lines)
    assert remedy(line) == f"GRANT SELECT ON {table} TO {role};"
    assert one(lines, "indexes: not examined").startswith("note ")
    bench.sql(remedy(line))
    assert fixes(examine(reader)) == []


def test_what_actions_lack_is_to_be_fixed_where_there_is_a_url_to_write_with(
    bench: Bench, reader: str
) -> None:
    (line,) = fixes(examine(bench.url, reader))
    database = bench.connection.info.dbname
    role = f"reader_{database[5:]}"
    assert line.startswith("fix  actions: ")
    assert f"GRANT UPDATE (updated_at) ON tracks TO {role};" in line
    assert f"GRANT INSERT, UPDATE, DELETE ON audio_tasks TO {role};" in line
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
    line = one(lines, "writes to audio_tasks")
    assert line.startswith("ok   trigger enqueue_track on tracks")
    assert "function enqueue_track()" in line
    enqueue(bench, '"Second one"')
    (line,) = fixes(examine(bench.url))
    assert '"Second one", enqueue_track all insert' in line
    bench.sql(remedy(line))
    assert fixes(examine(bench.url)) == []


def test_a_disabled_trigger_is_noted_with_how_to_enable_it(bench: Bench) -> None:
    enqueue(bench, "enqueue_track")
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER enqueue_track")
    line = one(examine(bench.url), "enqueue_track on tracks")
    assert line.startswith("note ")
    bench.sql(remedy(line))
    assert one(examine(bench.url), "enqueue_track on tracks").startswith("ok ")


@pytest.mark.parametrize("table", ["tracks", "audio_tasks"])
def test_a_table_whose_updated_at_nobody_keeps_is_noted(bench: Bench, table: str) -> None:
    bench.sql(f"DROP TRIGGER {table}_set_updated_at ON {table}")
    lines = examine(bench.url)
    assert one(lines, f"none keeps {table}.updated_at").startswith("note ")
    assert one(lines, ": one keeps ").startswith("ok ")


def test_a_table_without_a_check_on_stages_is_noted(bench: Bench) -> None:
    bench.sql("ALTER TABLE tracks DROP CONSTRAINT tracks_stage_check")
    assert one(examine(bench.url), "stages: ").startswith("note stages: no CHECK on tracks.stage")


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


@pytest.fixture(scope="module")
def standby() -> Iterator[str]:
    """The URL of a replica that has replayed all that its primary wrote."""
    settings = {"wal_level": "replica", "max_wal_senders": "2"}
    folders = [tempfile.mkdtemp(prefix="queue-insights-test-", dir="/var/tmp") for _ in range(2)]
    primary, replica = (demo.EmbeddedServer(folder, settings) for folder in folders)
    try:
        for server in (primary, replica):
            server.start()
            server.stop()
        become_replica(replica.data, primary)
        with primary, replica, psycopg.connect(primary.url("postgres")) as connection:
            demo.create_schema(connection, "a")
            connection.commit()
            row = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
            with psycopg.connect(replica.url("postgres"), autocommit=True) as other:
                behind = "SELECT pg_last_wal_replay_lsn() < %s OR pg_last_wal_replay_lsn() IS NULL"
                while other.execute(behind, row).fetchone() == (True,):
                    pass
            yield replica.url("postgres")
    finally:
        for folder in folders:
            shutil.rmtree(folder)


def become_replica(data: Path, primary: demo.EmbeddedServer) -> None:
    """Make *data* a copy of the stopped primary's, that follows it."""
    owner = data.stat()
    shutil.rmtree(data)
    shutil.copytree(primary.data, data)
    (data / "standby.signal").touch()
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write(f"primary_conninfo = '{primary.url('postgres')}'\n")
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


def test_a_standby_is_noted_for_reads_and_no_place_for_actions(standby: str, bench: Bench) -> None:
    lines = examine(standby)
    assert re.match(r"note reads: .*, a standby: figures are \d+\.\d s old", lines[0])
    assert one(lines, "actions: ", "is a standby: name the primary in").startswith("note ")
    assert fixes(lines) == []
    assert one(examine(bench.url, standby), "actions: ", "is a standby").startswith("fix ")


@pytest.mark.parametrize(("seconds", "level"), [(None, "note"), (299.0, "note"), (301.0, "fix")])
def test_a_standby_far_behind_is_to_be_fixed(
    standby: str, monkeypatch: pytest.MonkeyPatch, seconds: float | None, level: str
) -> None:
    read: Callable[..., Any] = Database.read

    @contextlib.contextmanager
    def behind(self: Database, **which: bool) -> Iterator[Moment]:
        with read(self, **which) as moment:
            yield dataclasses.replace(moment, replay_lag_seconds=seconds)

    monkeypatch.setattr(Database, "read", behind)
    line = one(examine(standby), "reads: ")
    assert line.startswith(level)
    assert (READ_URL in line) == (level == "fix")


def test_reads_from_a_standby_say_so_on_stderr(standby: str) -> None:
    result = CliRunner(env={READ_URL: standby}).invoke(main, ["backlog", "--format", "json"])
    assert result.exit_code == 0
    assert re.fullmatch(r"queue-insights: read from a standby, \d+\.\d s behind\n", result.stderr)
    assert result.stdout.startswith("[")


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
