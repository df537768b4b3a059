"""Installing and removing the trigger: nothing half done, nothing else touched."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from conftest import Bench
from operating import FUNCTION, field_trigger
from processes import children, until
from queue_insights import demo, pipeline
from queue_insights.cli import main
from queue_insights.database import Database
from queue_insights.ddl import migration, trigger
from queue_insights.ddl.migration import MigrationError
from queue_insights.demo import binaries
from queue_insights.errors import InputError
from queue_insights.queue import Queue
from reporting import queue_insights

OBJECTS = """
    SELECT 'function', proname::text, md5(prosrc) FROM pg_proc
    WHERE pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    UNION ALL SELECT 'trigger', tgname, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'relation', relname, relkind::text FROM pg_class
    WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace,
                               'pg_toast'::regnamespace)
    UNION ALL SELECT 'schema', nspname, '' FROM pg_namespace WHERE nspname !~ '^pg_'
"""


def objects(bench: Bench) -> set[tuple[object, ...]]:
    return set(bench.sql(OBJECTS))


# --- install, uninstall -----------------------------------------------------------------------


def test_install_can_be_repeated_and_uninstall_leaves_what_was_there(bench: Bench) -> None:
    before = objects(bench)
    trigger.install(bench.queue)
    first = objects(bench)
    assert {name for kind, name, _ in first - before} == {
        FUNCTION,
        f"{FUNCTION}_insert",
        f"{FUNCTION}_update",
    }
    trigger.install(bench.queue)
    assert objects(bench) == first
    assert trigger.verify(bench.queue) == []
    trigger.uninstall(bench.queue)
    assert objects(bench) == before
    assert trigger.uninstall(bench.queue).startswith("there is no trigger")
    assert trigger.verify(bench.queue)[0].startswith("there is no trigger")


def test_uninstall_keeps_ledger_and_rows_and_works_without_a_task_table(bench: Bench) -> None:
    queue = Queue(Database(bench.url), pipeline.load())
    bench.track("waits", "audio_ready")
    trigger.install(queue)
    queue.plan_backfill().apply(max_rows=1, pause=0)
    bench.track("new", "audio_ready")
    trigger.uninstall(queue)
    assert list(queue.runs().rows_done) == [1]
    assert bench.sql("SELECT count(*) FROM audio_tasks") == [(2,)]
    trigger.install(queue)
    bench.sql("DROP TABLE audio_tasks CASCADE")
    assert "removed" in trigger.uninstall(queue)
    assert bench.sql("SELECT 1 FROM pg_trigger WHERE tgname ~ '^queue_insights'") == []


def test_only_its_own_token_confirms_an_install(bench: Bench) -> None:
    with pytest.raises(InputError, match=trigger.token(bench.queue)):
        trigger.install(bench.queue, confirm="yes")
    assert trigger.verify(bench.queue) != []
    trigger.install(bench.queue, confirm=trigger.token(bench.queue))
    assert trigger.verify(bench.queue) == []


@pytest.mark.parametrize("case", ["a check", "an older trigger"])
def test_a_trigger_that_would_fail_stage_changes_is_not_installed(bench: Bench, case: str) -> None:
    bench.track("done", "ready")
    if case == "a check":
        bench.sql("ALTER TABLE audio_tasks ADD CHECK (task_type <> 'segment')")
    else:
        field_trigger(bench, "zz_later_in_the_alphabet", conflict="")
    before = objects(bench)
    with pytest.raises(MigrationError, match=r"a change of stage fails: .*(check|duplicate key)"):
        trigger.install(bench.queue)
    assert objects(bench) == before


def test_a_guard_that_forbids_the_proof_does_not_forbid_the_install(bench: Bench) -> None:
    bench.track("done", "ready")
    bench.sql("""
        CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'ready is final'; END $$;
        CREATE TRIGGER guard BEFORE UPDATE OF stage ON tracks FOR EACH ROW
        WHEN (OLD.stage = 'ready') EXECUTE FUNCTION guard()
    """)
    assert "not proved: a change of stage fails: ready is final" in trigger.install(bench.queue)
    assert trigger.verify(bench.queue) == []


# --- locks --------------------------------------------------------------------------------------


@pytest.fixture
def writer(bench: Bench) -> Iterator[psycopg.Connection]:
    """A session in the middle of a long change of the tracks."""
    bench.track("done", "ready")
    with psycopg.connect(bench.url, application_name="nightly load") as connection:
        connection.execute("UPDATE tracks SET has_audio = true")
        yield connection


def test_install_gives_up_beside_a_long_writer_and_names_it(
    bench: Bench, writer: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "PATIENCE", 0.1)
    before = objects(bench)
    with pytest.raises(MigrationError) as raised:
        trigger.install(bench.queue)
    assert f"tracks is in use by pid {writer.info.backend_pid} (nightly load, idle in" in str(
        raised.value
    )
    assert objects(bench) == before
    writer.rollback()
    trigger.install(bench.queue)
    assert trigger.verify(bench.queue, prove=True) == []


def test_install_goes_on_when_the_writer_ends(bench: Bench, writer: psycopg.Connection) -> None:
    with children() as start:
        installer = start(lambda: trigger.install(bench.queue))
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'"
        until(lambda: bench.sql(waits) or installer.ends_within(0), "the installer to wait")
        writer.commit()
        assert "installed" in installer.result()["value"]
    assert trigger.verify(bench.queue) == []


# --- the migration as a file ----------------------------------------------------------------------


def psql(bench: Bench, script: str) -> None:
    command = [binaries.installed() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", bench.url]
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_printed_migration_runs_in_psql_both_ways(bench: Bench, tmp_path: Path) -> None:
    before = objects(bench)
    file = tmp_path / "schema" / "migrations" / "009-trigger.sql"
    written = queue_insights("trigger", "sql", "--output", file, url=bench.url)
    assert (written.returncode, written.stdout.strip()) == (0, str(file))
    printed = trigger.generate(bench.queue).text()
    assert file.read_text() == printed

    psql(bench, printed)
    assert trigger.verify(bench.queue) == []
    # As the file says: sed -n 's/^--down //p'
    down = [line.removeprefix("--down ") for line in printed.splitlines() if line[:6] == "--down"]
    psql(bench, "\n".join(down))
    assert objects(bench) == before

    file.write_text("-- edited")
    with pytest.raises(InputError, match="holds something else"):
        migration.write(file, printed)
    assert file.read_text() == "-- edited"
    migration.write(tmp_path / "copy.sql", printed)
    migration.write(tmp_path / "copy.sql", printed)  # the same again is no harm
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.sql", "schema"]


def test_the_migration_of_one_variant_does_not_go_into_the_other(bench: Bench) -> None:
    if bench.variant == "b":
        pytest.skip("starts from A")
    up = trigger.generate(bench.queue).text()
    demo.migrate(bench.connection)
    before = objects(bench)
    with pytest.raises(psycopg.errors.InvalidColumnReference, match="ON CONFLICT"):
        bench.connection.execute(up.encode())
    bench.connection.execute("ROLLBACK")
    assert objects(bench) == before


# --- the commands ---------------------------------------------------------------------------------


def test_the_commands_from_verify_to_uninstall(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    monkeypatch.setenv("QUEUE_INSIGHTS_URL", bench.url)
    bench.track("waits", "audio_ready")
    absent = command("trigger", "verify")
    assert (absent.exit_code, len(absent.stdout.splitlines())) == (3, 1)
    installing = command("trigger", "install")
    assert installing.exit_code == 0
    lines = installing.stdout.splitlines()
    assert lines[0].startswith("trigger installed on public.tracks (pipeline karaoke (")
    assert [line for line in lines if "--confirm" in line] == [lines[-1]]
    assert lines[-1].startswith("queue-insights backfill --apply --confirm 0.1.0.0.0.0.0-")
    backfill = command(*lines[-1].split()[1:])
    assert backfill.exit_code == 0
    proved = command("trigger", "verify", "--probe")
    assert (proved.exit_code, "proved" in proved.stdout) == (0, True)
    again = command("trigger", "install")
    assert again.stdout.splitlines()[-1].startswith("nothing to backfill")
    assert command("trigger", "uninstall").exit_code == 0
