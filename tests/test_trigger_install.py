"""Installing, verifying and removing the trigger: nothing half done, nothing else touched."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from conftest import Bench
from queue_insights import demo, migration, pipeline, trigger
from queue_insights.actions import OperableQueue
from queue_insights.cli import main
from queue_insights.database import Database
from queue_insights.demo import binaries
from queue_insights.errors import InputError
from queue_insights.migration import MigrationError
from queue_insights.queue import Queue
from reporting import queue_insights

FUNCTION = "queue_insights_tracks_to_audio_tasks"
OBJECTS = """
    SELECT 'function', proname::text, md5(prosrc) FROM pg_proc
    WHERE pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    UNION ALL SELECT 'trigger', tgname, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'relation', relname, relkind::text FROM pg_class
    WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace,
                               'pg_toast'::regnamespace)
    UNION ALL SELECT 'schema', nspname, '' FROM pg_namespace WHERE nspname !~ '^pg_'
"""
# As the field had it, twice: one IF per stage, no WHEN.
FIELD = """
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.stage = 'audio_ready' AND OLD.stage != 'audio_ready' THEN
            INSERT INTO audio_tasks ({columns}) VALUES ({values}) {conflict};
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER {name} AFTER UPDATE ON tracks FOR EACH ROW EXECUTE FUNCTION {name}()
"""


def objects(bench: Bench) -> set[tuple[object, ...]]:
    return set(bench.sql(OBJECTS))


def field_trigger(bench: Bench, name: str, conflict: str = "ON CONFLICT DO NOTHING") -> None:
    columns, values = "spotify_track_id, task_type", "NEW.spotify_track_id, 'align'"
    if bench.variant == "b":
        columns, values = f"{columns}, subject_id", f"{values}, NEW.spotify_track_id"
    bench.sql(FIELD.format(name=name, columns=columns, values=values, conflict=conflict))


@pytest.fixture
def installed(bench: Bench) -> Bench:
    bench.track("done", "ready")
    trigger.install(bench.queue)
    return bench


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


def test_uninstall_keeps_the_ledger_and_the_rows(bench: Bench) -> None:
    queue = OperableQueue(Database(bench.url), pipeline.load())
    bench.track("waits", "audio_ready")
    trigger.install(queue)
    queue.plan_backfill().apply(max_rows=1, pause=0)
    bench.track("new", "audio_ready")
    trigger.uninstall(queue)
    assert list(queue.runs().rows_done) == [1]
    assert bench.sql("SELECT count(*) FROM audio_tasks") == [(2,)]


def test_uninstall_works_whatever_has_become_of_the_task_table(installed: Bench) -> None:
    installed.sql("DROP TABLE audio_tasks CASCADE")
    assert "removed" in trigger.uninstall(installed.queue)
    assert installed.sql("SELECT 1 FROM pg_trigger WHERE tgname ~ '^queue_insights'") == []


def test_only_its_own_token_confirms_an_install(bench: Bench) -> None:
    with pytest.raises(InputError, match=trigger.token(bench.queue)):
        trigger.install(bench.queue, confirm="yes")
    assert trigger.verify(bench.queue) != []
    trigger.install(bench.queue, confirm=trigger.token(bench.queue))
    assert trigger.verify(bench.queue) == []


def test_a_trigger_that_would_fail_stage_changes_is_not_installed(bench: Bench) -> None:
    bench.track("done", "ready")
    bench.sql("ALTER TABLE audio_tasks ADD CHECK (task_type <> 'segment')")
    before = objects(bench)
    with pytest.raises(MigrationError, match=r"a change of stage fails: .*violates check"):
        trigger.install(bench.queue)
    assert objects(bench) == before


def test_nor_one_that_makes_an_older_trigger_fail(bench: Bench) -> None:
    bench.track("done", "ready")
    field_trigger(bench, "zz_later_in_the_alphabet", conflict="")
    before = objects(bench)
    with pytest.raises(MigrationError, match="duplicate key"):
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


def test_install_without_the_privilege_says_what_to_do_in_a_line(bench: Bench) -> None:
    role = f"reader_{os.getpid()}_{bench.variant}"
    bench.sql(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    before = objects(bench)
    queue = Queue(Database(bench.url, bench.url.replace("postgres@", f"{role}@")), pipeline.load())
    try:
        with pytest.raises(
            MigrationError, match="nothing was changed: permission denied"
        ) as raised:
            trigger.install(queue)
        assert "\n" not in str(raised.value)
        assert objects(bench) == before
    finally:
        bench.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


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
    errors: list[Exception] = []

    def install() -> None:
        try:
            trigger.install(bench.queue)
        except Exception as error:
            errors.append(error)

    installer = threading.Thread(target=install)
    installer.start()
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'"
    while installer.is_alive() and not bench.sql(waits):
        pass
    writer.commit()
    installer.join(60)
    assert not errors
    assert trigger.verify(bench.queue) == []


def test_uninstall_gives_up_beside_a_long_reader(
    installed: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "PATIENCE", 0.1)
    with psycopg.connect(installed.url, application_name="slow report") as reader:
        reader.execute("SELECT * FROM tracks")
        with pytest.raises(MigrationError, match="slow report"):
            trigger.uninstall(installed.queue)
    assert trigger.verify(installed.queue) == []


# --- verify -------------------------------------------------------------------------------------

AMISS = {
    "disabled": (f"ALTER TABLE tracks DISABLE TRIGGER {FUNCTION}_insert", "is disabled"),
    "replica": (
        f"ALTER TABLE tracks ENABLE REPLICA TRIGGER {FUNCTION}_update",
        "fires only for replicated changes",
    ),
    "always": (f"ALTER TABLE tracks ENABLE ALWAYS TRIGGER {FUNCTION}_update", "replicated changes"),
    "one dropped": (f"DROP TRIGGER {FUNCTION}_insert ON tracks", f"{FUNCTION}_insert is missing"),
    "another source": (
        f"CREATE OR REPLACE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql "
        "SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'",
        "was changed after it was installed",
    ),
    "invoker": (f"ALTER FUNCTION {FUNCTION}() SECURITY INVOKER", "was changed after"),
    "search_path": (f"ALTER FUNCTION {FUNCTION}() RESET search_path", "was changed after"),
    "for everybody": (f"GRANT EXECUTE ON FUNCTION {FUNCTION}() TO PUBLIC", "anybody may use"),
    "no comment": (f"COMMENT ON FUNCTION {FUNCTION}() IS NULL", "has lost its comment"),
    "another condition": (
        f"CREATE OR REPLACE TRIGGER {FUNCTION}_update AFTER UPDATE OF stage ON tracks FOR EACH ROW "
        f"WHEN (OLD.stage IS DISTINCT FROM NEW.stage AND NEW.stage IN ('audio_ready')) "
        f"EXECUTE FUNCTION {FUNCTION}()",
        f"{FUNCTION}_update is not as it was installed",
    ),
    "a null gap": (
        f"CREATE OR REPLACE TRIGGER {FUNCTION}_update AFTER UPDATE OF stage ON tracks FOR EACH ROW "
        "WHEN (OLD.stage <> NEW.stage AND NEW.stage IN ('lyrics_acquired', 'audio_ready', "
        "'aligned', 'translated', 'separated', 'segmented', 'enhanced')) "
        f"EXECUTE FUNCTION {FUNCTION}()",
        f"{FUNCTION}_update is not as it was installed",
    ),
    "another table": (
        "CREATE TABLE copy (LIKE tracks); "
        f"CREATE TRIGGER stray AFTER INSERT ON copy FOR EACH ROW EXECUTE FUNCTION {FUNCTION}()",
        "trigger stray is on public.copy, not on public.tracks: DROP TRIGGER stray ON public.copy;",
    ),
    "replica mode": (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', "
        "current_database()); END $$",
        "session_replication_role = replica",
    ),
}


@pytest.mark.parametrize("case", AMISS)
def test_verify_says_what_is_amiss_and_installing_again_mends_it(
    fresh: Callable[[str], Bench], case: str
) -> None:
    installed = fresh("a")
    trigger.install(installed.queue)
    breaks, says = AMISS[case]
    assert trigger.verify(installed.queue) == []
    installed.sql(breaks)
    findings = trigger.verify(installed.queue)
    assert len(findings) == 1
    assert says in findings[0]
    assert "\n" not in findings[0]
    if case not in ("another table", "replica mode"):  # these are not the trigger's own
        trigger.install(installed.queue)
        assert trigger.verify(installed.queue) == []


def test_an_owner_who_lost_its_rights_is_found(installed: Bench) -> None:
    role = f"owner_{os.getpid()}_{installed.variant}"
    installed.sql(f"CREATE ROLE {role}; ALTER FUNCTION {FUNCTION}() OWNER TO {role}")
    try:
        (finding,) = trigger.verify(installed.queue)
        assert finding.endswith(f"GRANT SELECT, INSERT ON public.audio_tasks TO {role};")
    finally:
        installed.sql(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_triggers_that_do_the_same_work_are_named_with_what_removes_them(installed: Bench) -> None:
    field_trigger(installed, "on_stage_change")
    field_trigger(installed, '"Track Stage"')
    installed.sql("""
        CREATE FUNCTION ensure_row(track text) RETURNS void LANGUAGE sql AS
            $$ INSERT INTO "audio_tasks" (spotify_track_id, task_type) VALUES (track, 'align') $$;
        CREATE FUNCTION indirect() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM ensure_row(NEW.spotify_track_id); RETURN NEW; END $$;
        CREATE TRIGGER indirect AFTER DELETE ON tracks FOR EACH ROW EXECUTE FUNCTION indirect();
        CREATE FUNCTION harmless() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN -- insert into audio_tasks is not what this does
                RETURN NEW; END $$;
        CREATE TRIGGER harmless AFTER UPDATE ON tracks FOR EACH ROW EXECUTE FUNCTION harmless()
    """)
    findings = trigger.verify(installed.queue)
    drops = [finding.partition(": ")[2] for finding in findings]
    assert drops == [
        'DROP TRIGGER "Track Stage" ON public.tracks;',
        "DROP TRIGGER indirect ON public.tracks;",
        "DROP TRIGGER on_stage_change ON public.tracks;",
    ]
    for drop in drops:
        installed.sql(drop)
    assert trigger.verify(installed.queue, prove=True) == []


def test_migrating_a_to_b_makes_verify_fail_and_installing_again_mends_it(installed: Bench) -> None:
    if installed.variant == "b":
        pytest.skip("starts from A")
    with installed.connection.transaction():
        demo.migrate(installed.connection)
    (finding,) = trigger.verify(installed.queue)
    assert "was made for variant A, and the task table is variant B by now" in finding
    assert "`queue-insights trigger install` again" in finding
    assert any("a change of stage fails" in f for f in trigger.verify(installed.queue, prove=True))
    trigger.install(installed.queue)
    assert trigger.verify(installed.queue, prove=True) == []
    installed.track("t", "audio_ready")
    assert installed.sql("SELECT subject_type, subject_id, status FROM audio_tasks") == [
        ("track", "t", "pending")
    ]


def test_a_changed_pipeline_file_is_found(installed: Bench, tmp_path: Path) -> None:
    text = (Path(demo.__file__).parents[3] / "params/pipelines/karaoke.yaml").read_text()
    (tmp_path / "karaoke.yaml").write_text(text.replace("max_attempts: 3", "max_attempts: 5"))
    queue = Queue(Database(installed.url), pipeline.load(tmp_path / "karaoke.yaml"))
    (finding,) = trigger.verify(queue)
    assert "was made from an earlier pipeline file" in finding
    # What the trigger does not depend on does not count.
    (tmp_path / "slow.yaml").write_text(text.replace("stuck_after: 30m", "stuck_after: 2h"))
    slow = Queue(Database(installed.url), pipeline.load(tmp_path / "slow.yaml"))
    assert trigger.verify(slow) == []


def test_the_probe_changes_nothing_and_finds_what_the_catalog_does_not_show(
    installed: Bench,
) -> None:
    installed.track("waits", "audio_ready")
    content = "SELECT t::text FROM tracks t UNION ALL SELECT a::text FROM audio_tasks a ORDER BY 1"
    before = installed.sql(content)
    assert trigger.verify(installed.queue, prove=True) == []
    installed.sql("ALTER TABLE audio_tasks ADD shard int NOT NULL DEFAULT 0")
    installed.sql("ALTER TABLE audio_tasks ALTER shard DROP DEFAULT")
    assert trigger.verify(installed.queue) == []
    (finding,) = trigger.verify(installed.queue, prove=True)
    assert "shard" in finding
    installed.sql("ALTER TABLE audio_tasks DROP shard")
    assert installed.sql(content) == before


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
    assert lines[0].startswith("trigger installed on public.tracks (pipeline karaoke, variant")
    assert [line for line in lines if "--confirm" in line] == [lines[-1]]
    assert lines[-1].startswith("queue-insights backfill --apply --confirm 0.1.0.0.0.0.0-")
    backfill = command(*lines[-1].split()[1:])
    assert backfill.exit_code == 0
    proved = command("trigger", "verify", "--probe")
    assert (proved.exit_code, "proved" in proved.stdout) == (0, True)
    again = command("trigger", "install")
    assert again.stdout.splitlines()[-1].startswith("nothing to backfill")
    assert command("trigger", "uninstall").exit_code == 0
