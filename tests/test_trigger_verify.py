"""Verifying the trigger: what is amiss is found, and said with what mends it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Bench
from operating import FUNCTION, edited, field_trigger, operable
from queue_insights import demo
from queue_insights.ddl import trigger

STALE = "is not what `queue-insights trigger sql` prints now"
CHANGED = "was changed after it was installed"
UPDATE = f"{FUNCTION}_update AFTER UPDATE OF stage ON tracks FOR EACH ROW"
# What breaks the trigger, and what is said of it.
AMISS = {
    f"ALTER TABLE tracks DISABLE TRIGGER {FUNCTION}_insert": "is disabled",
    **{
        f"ALTER TABLE tracks ENABLE {when} TRIGGER {FUNCTION}_update": "replicated changes"
        for when in ("REPLICA", "ALWAYS")
    },
    f"DROP TRIGGER {FUNCTION}_insert ON tracks": f"{FUNCTION}_insert is missing",
    f"CREATE OR REPLACE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
    "SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'": CHANGED,
    f"ALTER FUNCTION {FUNCTION}() SECURITY INVOKER": CHANGED,
    f"ALTER FUNCTION {FUNCTION}() RESET search_path": CHANGED,
    f"GRANT EXECUTE ON FUNCTION {FUNCTION}() TO PUBLIC": CHANGED,
    f"COMMENT ON FUNCTION {FUNCTION}() IS NULL": STALE,
    # Of null, as it was deployed once; and of one stage only.
    **{
        f"CREATE OR REPLACE TRIGGER {UPDATE} WHEN ({condition}) EXECUTE FUNCTION {FUNCTION}()": (
            f"{FUNCTION}_update is not as it was installed"
        )
        for condition in (
            "OLD.stage <> NEW.stage AND NEW.stage IN ('lyrics_acquired', 'audio_ready', "
            "'aligned', 'translated', 'separated', 'segmented', 'enhanced')",
            "OLD.stage IS DISTINCT FROM NEW.stage AND NEW.stage IN ('audio_ready')",
        )
    },
}
# What is not the trigger's own, said of it, and what ends it.
BESIDE = [
    (
        "CREATE TABLE copy (LIKE tracks); "
        f"CREATE TRIGGER stray AFTER INSERT ON copy FOR EACH ROW EXECUTE FUNCTION {FUNCTION}()",
        "trigger stray is on public.copy, not on public.tracks: DROP TRIGGER stray ON public.copy;",
        "DROP TABLE copy",
    ),
    (
        "ALTER DATABASE {} SET session_replication_role = replica",
        "session_replication_role = replica",
        "ALTER DATABASE {} RESET session_replication_role",
    ),
]


@pytest.fixture
def installed(bench: Bench) -> Bench:
    bench.track("done", "ready")
    trigger.install(bench.queue)
    return bench


def test_what_verify_finds_amiss_installing_again_mends(fresh: Callable[[str], Bench]) -> None:
    bench = fresh("a")
    trigger.install(bench.queue)
    name = bench.connection.info.dbname
    for breaks, says, ends in (*((breaks, says, "") for breaks, says in AMISS.items()), *BESIDE):
        assert trigger.verify(bench.queue) == []
        bench.sql(breaks.format(name))
        (finding,) = trigger.verify(bench.queue)
        assert says in finding, breaks
        assert "\n" not in finding
        if ends:
            bench.sql(ends.format(name))
        else:
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


def test_migrating_a_to_b_is_amiss_and_mended_too(fresh: Callable[[str], Bench]) -> None:
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
