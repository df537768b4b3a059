"""Installing, verifying and removing the trigger: nothing half done, nothing else touched, and what
is amiss is found and said with what mends it."""

import subprocess
from pathlib import Path

import psycopg
import pytest

from conftest import Bench, Fresh
from operating import FUNCTION, Patch, command, edited, objects, operable
from processes import children, until
from queue_insights import demo
from queue_insights.ddl import migration, trigger
from queue_insights.ddl.migration import MigrationError
from queue_insights.demo import binaries
from queue_insights.errors import InputError
from workers import ENSURE

# A trigger as the field had it, twice: one IF per stage, no WHEN.
FIELD = """
    CREATE FUNCTION {0}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.stage = 'audio_ready' AND OLD.stage != 'audio_ready' THEN {1} {2}; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER {0} AFTER UPDATE ON tracks FOR EACH ROW EXECUTE FUNCTION {0}()
"""


def field_trigger(bench: Bench, name: str, conflict: str = "ON CONFLICT DO NOTHING") -> None:
    insert = ENSURE[bench.variant] % {"track": "NEW.spotify_track_id", "task": "'align'"}
    bench.sql(FIELD.format(name, insert, conflict))


def test_install_can_be_repeated_and_uninstall_leaves_what_was_there(bench: Bench) -> None:
    before = objects(bench)
    for token, says in (("yes", trigger.token(bench.queue)), ("", "does not confirm")):
        with pytest.raises(InputError, match=says):
            trigger.install(bench.queue, confirm=token)
        assert objects(bench) == before
    trigger.install(bench.queue, confirm=trigger.token(bench.queue))
    first = objects(bench)
    ours = {FUNCTION, f"{FUNCTION}_insert", f"{FUNCTION}_update"}
    assert {name for kind, name, _ in first - before} == ours
    trigger.install(bench.queue)
    assert objects(bench) == first
    assert trigger.verify(bench.queue) == []
    trigger.uninstall(bench.queue)
    assert objects(bench) == before
    assert trigger.uninstall(bench.queue).startswith("there is no trigger")
    assert trigger.verify(bench.queue)[0].startswith("there is no trigger")


def test_uninstall_works_without_a_task_table(bench: Bench) -> None:
    trigger.install(bench.queue)
    bench.sql("DROP TABLE audio_tasks CASCADE")
    assert "removed" in trigger.uninstall(bench.queue)
    assert bench.sql("SELECT 1 FROM pg_trigger WHERE tgname ~ '^queue_insights'") == []


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


def test_install_waits_for_a_long_writer_whom_it_names(bench: Bench, monkeypatch: Patch) -> None:
    bench.track("done", "ready")
    before = objects(bench)
    with psycopg.connect(bench.url, application_name="nightly load") as writer:
        writer.execute("UPDATE tracks SET has_audio = true")
        named = rf"tracks is in use by pid {writer.info.backend_pid} \(nightly load, idle in"
        with monkeypatch.context() as patch:
            patch.setattr(migration, "PATIENCE", 0.1)
            with pytest.raises(MigrationError, match=named):
                trigger.install(bench.queue)
        assert objects(bench) == before
        with children() as start:
            installer = start(lambda: trigger.install(bench.queue))
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'"
            until(lambda: bench.sql(waits) or installer.ends_within(0), "the installer to wait")
            writer.commit()
            assert "installed" in installer.result()["value"]
    assert trigger.verify(bench.queue, prove=True) == []


def psql(bench: Bench, script: str) -> str:
    """What it says of *script* that goes wrong."""
    command = [binaries.installed() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", bench.url]
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    assert bool(done.returncode) == bool(done.stderr)
    return done.stderr


def test_the_printed_migration_runs_in_psql_both_ways(bench: Bench, tmp_path: Path) -> None:
    before = objects(bench)
    file = tmp_path / "schema" / "migrations" / "009-trigger.sql"
    for _ in range(2):  # the same again is no harm
        written = command(bench.url, "trigger", "sql", "--output", str(file))
        assert (written.exit_code, written.stdout.strip()) == (0, str(file))
    printed = trigger.generate(bench.queue).text()
    assert file.read_text() == printed

    assert psql(bench, printed) == ""
    assert trigger.verify(bench.queue) == []
    # As the file says: sed -n 's/^--down //p'
    down = [line.removeprefix("--down ") for line in printed.splitlines() if line[:6] == "--down"]
    assert psql(bench, "\n".join(down)) == ""
    assert objects(bench) == before

    file.write_text("-- edited")
    refused = command(bench.url, "trigger", "sql", "--output", str(file))
    assert (refused.exit_code, "holds something else" in refused.stderr) == (2, True)
    assert file.read_text() == "-- edited"
    assert list(file.parent.iterdir()) == [file]
    if bench.variant == "a":
        demo.migrate(bench.connection)
        before = objects(bench)
        assert "ON CONFLICT" in psql(bench, printed)
        assert objects(bench) == before


def test_the_commands_from_verify_to_uninstall(bench: Bench) -> None:
    bench.track("waits", "audio_ready")
    absent = command(bench.url, "trigger", "verify")
    assert (absent.exit_code, len(absent.stdout.splitlines())) == (3, 1)
    installing = command(bench.url, "trigger", "install")
    assert installing.exit_code == 0
    lines = installing.stdout.splitlines()
    assert lines[0].startswith("trigger installed on public.tracks (pipeline karaoke (")
    assert [line for line in lines if "--confirm" in line] == [lines[-1]]
    assert lines[-1].startswith("queue-insights backfill --apply --confirm 0.1.0.0.0.0.0-")
    assert command(bench.url, *lines[-1].split()[1:]).exit_code == 0
    assert bench.queue.audit().hidden.sum() == 0
    proved = command(bench.url, "trigger", "verify", "--probe")
    assert (proved.exit_code, "proved" in proved.stdout) == (0, True)
    again = command(bench.url, "trigger", "install")
    assert again.stdout.splitlines()[-1].startswith("nothing to backfill")
    assert command(bench.url, "trigger", "uninstall").exit_code == 0
    assert list(bench.queue.runs().rows_done) == [1]
    assert bench.sql("SELECT count(*) FROM audio_tasks") == [(1,)]


STALE = "is not what `queue-insights trigger sql` prints now"
CHANGED = "was changed after it was installed"
# What breaks the trigger, and what is said of it.
AMISS = {
    f"ALTER TABLE tracks DISABLE TRIGGER {FUNCTION}_insert": "is disabled",
    f"ALTER TABLE tracks ENABLE REPLICA TRIGGER {FUNCTION}_update": "replicated changes",
    f"DROP TRIGGER {FUNCTION}_insert ON tracks": f"{FUNCTION}_insert is missing",
    f"CREATE OR REPLACE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
    "SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'": CHANGED,
    f"ALTER FUNCTION {FUNCTION}() SECURITY INVOKER": CHANGED,
    f"GRANT EXECUTE ON FUNCTION {FUNCTION}() TO PUBLIC": CHANGED,
    # Blind to a stage of null, as it was deployed once.
    f"CREATE OR REPLACE TRIGGER {FUNCTION}_update AFTER UPDATE OF stage ON tracks FOR EACH ROW "
    "WHEN (OLD.stage <> NEW.stage AND NEW.stage IN ('lyrics_acquired', 'audio_ready', 'aligned', "
    f"'translated', 'separated', 'segmented', 'enhanced')) EXECUTE FUNCTION {FUNCTION}()": (
        f"{FUNCTION}_update is not as it was installed"
    ),
}


@pytest.fixture
def installed(bench: Bench) -> Bench:
    bench.track("done", "ready")
    trigger.install(bench.queue)
    return bench


def test_what_verify_finds_amiss_installing_again_mends(fresh: Fresh) -> None:
    bench = fresh("a")
    trigger.install(bench.queue)
    for breaks, says in AMISS.items():
        bench.sql(breaks)
        (finding,) = trigger.verify(bench.queue)
        assert says in finding, breaks
        assert "\n" not in finding
        trigger.install(bench.queue)
        assert trigger.verify(bench.queue) == []


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


def test_migrating_a_to_b_is_amiss_and_mended_too(fresh: Fresh) -> None:
    installed = fresh("a")
    installed.track("done", "ready")
    trigger.install(installed.queue)
    demo.migrate(installed.connection)
    (finding,) = trigger.verify(installed.queue)
    assert STALE in finding
    assert "`queue-insights trigger install` again" in finding
    assert any("a change of stage fails" in f for f in trigger.verify(installed.queue, prove=True))
    trigger.install(installed.queue)
    assert trigger.verify(installed.queue, prove=True) == []
    installed.track("t", "audio_ready")
    assert installed.sql("SELECT subject_type, subject_id, status FROM audio_tasks") == [
        ("track", "t", "pending")
    ]


def test_a_changed_pipeline_file_is_found(installed: Bench, tmp_path: Path) -> None:
    changed = edited(tmp_path, "max_attempts: 3", "max_attempts: 5")
    (finding,) = trigger.verify(operable(installed.url, changed))
    assert STALE in finding
    # What the trigger does not depend on does not count.
    changed = edited(tmp_path, "stuck_after: 30m", "stuck_after: 2h")
    assert trigger.verify(operable(installed.url, changed)) == []


def test_the_probe_finds_what_the_catalog_does_not_show(installed: Bench) -> None:
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
