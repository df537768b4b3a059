"""The trigger does what a plain model says, on both variants, and never fails an application."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg.sql
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import Bench
from fuzzing import cases
from operating import operable
from processes import children, until
from queue_insights.ddl import trigger
from queue_insights.sql.frames import query
from workers import ENSURE

STAGES = ["pending", "lyrics_acquired", "audio_ready", "translated", "enhanced", "ready", None]
DUE = {  # two tasks at one stage; their own limits
    "lyrics_acquired": {"download": 3},
    "audio_ready": {"align": 2, "translate": 5},
    "enhanced": {"clip": 3},
}
ROWS = """
    SELECT spotify_track_id, task_type, status, attempts, max_attempts FROM audio_tasks
    WHERE spotify_track_id IS NOT NULL
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = yaml.safe_load(Path("params/pipelines/karaoke.yaml").read_text())
    content["steps"] = [
        {"stage": stage, "task": task, "max_attempts": most}
        for stage, tasks in DUE.items()
        for task, most in tasks.items()
    ]
    file = tmp_path_factory.mktemp("pipeline") / "two_at_a_stage.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def installed(bench: Bench) -> Bench:
    trigger.install(bench.queue)
    return bench


def rows(bench: Bench) -> set[tuple[object, ...]]:
    return set(bench.sql(ROWS))


tracks = st.sampled_from("abcd")
stages = st.sampled_from(STAGES)
operations = st.one_of(
    st.tuples(st.sampled_from(["insert", "upsert", "move"]), tracks, stages),
    st.tuples(st.just("bulk"), stages, stages),
    st.tuples(st.sampled_from(["touch", "delete", "complete"]), tracks),
    st.tuples(st.just("rotate")),
)
INSERT = "INSERT INTO tracks (spotify_track_id, title, artists, stage) VALUES ({0}, 'A', '[]', {1})"
NEXT = dict(zip(STAGES, STAGES[1:] + STAGES[:1], strict=True))
CASES = " ".join(f"WHEN '{a or ''}' THEN '{b}'" for a, b in NEXT.items() if b)
STATEMENTS = {  # {0} is a track or a stage, {1} a stage
    "insert": f"{INSERT} ON CONFLICT DO NOTHING",
    "upsert": f"{INSERT} ON CONFLICT (spotify_track_id) DO UPDATE SET stage = excluded.stage",
    "move": "UPDATE tracks SET has_audio = true, stage = {1} WHERE spotify_track_id = {0}",
    "touch": "UPDATE tracks SET has_audio = NOT has_audio WHERE spotify_track_id = {0}",
    "bulk": "UPDATE tracks SET stage = {1} WHERE stage IS NOT DISTINCT FROM {0}",
    "rotate": f"UPDATE tracks SET stage = CASE coalesce(stage, '') {CASES} END",
    "delete": "DELETE FROM tracks WHERE spotify_track_id = {0}",
    "complete": "UPDATE audio_tasks SET status = 'completed' WHERE spotify_track_id = {0}",
}


class Model:
    """A pending row for each task due at a stage that a track reaches, unless it has one."""

    def __init__(self) -> None:
        self.tracks: dict[str, str | None] = {}
        self.rows: dict[tuple[str, str], tuple[str, int, int]] = {}

    def put(self, track: str, stage: str | None) -> None:
        if self.tracks.get(track) != stage:
            for task, most in DUE.get(stage or "", {}).items():
                self.rows.setdefault((track, task), ("pending", 0, most))
        self.tracks[track] = stage

    def apply(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case ("insert", track, stage) if track not in self.tracks:
                self.put(track, stage)
            case ("upsert", track, stage):
                self.put(track, stage)
            case ("move", track, stage) if track in self.tracks:
                self.put(track, stage)
            case ("bulk", before, after):
                for track in [t for t, s in self.tracks.items() if s == before]:
                    self.put(track, after)
            case ("rotate",):
                for track, stage in list(self.tracks.items()):
                    self.put(track, NEXT[stage])
            case ("delete", track):
                self.tracks.pop(track, None)
                self.rows = {key: row for key, row in self.rows.items() if key[0] != track}
            case ("complete", track):
                for key in [key for key in self.rows if key[0] == track]:
                    self.rows[key] = ("completed", *self.rows[key][1:])


@cases(12)
@given(history=st.lists(operations, max_size=14))
@example(
    history=[
        ("insert", "a", "audio_ready"),
        ("complete", "a"),
        ("bulk", "audio_ready", None),
        ("move", "a", "audio_ready"),
        ("bulk", "audio_ready", None),
        ("move", "a", "enhanced"),
    ]
)
def test_any_history_gives_the_rows_of_the_model_and_hides_nothing(
    bench: Bench, file: Path, history: list[tuple[Any, ...]]
) -> None:
    queue = operable(bench.url, file)
    if not bench.sql("SELECT 1 FROM pg_trigger WHERE tgname ~ '^queue_insights'"):
        bench.sql("ALTER TABLE tracks ALTER COLUMN stage DROP NOT NULL")
        trigger.install(queue)
    audit = query(queue.schema, datetime.now(UTC), "audit", sources=False).sql
    bench.sql("TRUNCATE tracks, audio_tasks")
    if bench.variant == "b":  # a video's row is no track's, whatever it is called
        bench.sql(
            "INSERT INTO audio_tasks (subject_type, subject_id, task_type) "
            "VALUES ('tiktok_video', 'a', 'align')"
        )
    model = Model()
    for operation in history:
        values = map(psycopg.sql.Literal, operation[1:])
        bench.connection.execute(psycopg.sql.SQL(STATEMENTS[operation[0]]).format(*values))
        model.apply(operation)
        expected = {(*key, *row) for key, row in model.rows.items()}
        assert rows(bench) == expected, operation
        assert bench.sql(f"SELECT sum(hidden) FROM ({audit}) a") == [(0,)], operation


def test_an_application_role_needs_no_right_on_the_task_table(installed: Bench) -> None:
    connection = installed.connection
    role = f"app_{connection.info.dbname}"
    connection.execute(f"CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE ON tracks TO {role}")
    connection.execute(f"CREATE SCHEMA trap AUTHORIZATION {role}")
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL ROLE {role}")
            # Names of its own, first in its search_path, catch nothing.
            connection.execute("CREATE TABLE trap.audio_tasks (LIKE tracks)")
            connection.execute(
                "CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql "
                "AS 'SELECT NULL::timestamptz'"
            )
            connection.execute("SET LOCAL search_path = trap, public, pg_catalog")
            installed.track("t", "audio_ready")
            (now,) = installed.sql("SELECT pg_catalog.now()")
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute("SELECT FROM public.audio_tasks")
            name = installed.sql("SELECT proname FROM pg_proc WHERE proname ~ '^queue_insights'")
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(
                    "CREATE TRIGGER mine AFTER INSERT ON trap.audio_tasks FOR EACH ROW "
                    f"EXECUTE FUNCTION public.{name[0][0]}()"
                )
        assert rows(installed) == {("t", "align", "pending", 0, 3)}
        assert installed.sql("SELECT created_at FROM audio_tasks") == [now]
    finally:
        connection.execute(f"DROP SCHEMA trap CASCADE; DROP OWNED BY {role}; DROP ROLE {role}")


def test_it_waits_for_a_worker_that_is_making_the_same_row(installed: Bench) -> None:
    installed.track("t", "pending")

    def move() -> None:
        with psycopg.connect(installed.url) as other:
            other.execute("UPDATE tracks SET stage = 'audio_ready'")

    with psycopg.connect(installed.url) as worker, children() as start:
        worker.execute(ENSURE[installed.variant], {"track": "t", "task": "align"})
        mover = start(move)
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        until(lambda: installed.sql(waiting) or mover.ends_within(0), "the mover to wait")
        assert not mover.ends_within(0)
        worker.commit()
        assert mover.result() == {"value": None}
    assert rows(installed) == {("t", "align", "pending", 0, 3)}


def test_a_stage_that_another_trigger_sets_counts_too(bench: Bench) -> None:
    ours = (
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname ~ '^queue_insights.*_update$'"
    )
    trigger.install(bench.queue)
    assert "AFTER UPDATE OF stage ON" in bench.sql(ours)[0][0]
    bench.sql("""
        CREATE FUNCTION advance() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.has_audio AND NEW.stage = 'lyrics_acquired' THEN
                NEW.stage := 'audio_ready';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER advance BEFORE UPDATE ON tracks FOR EACH ROW EXECUTE FUNCTION advance()
    """)
    bench.track("done", "ready")
    trigger.install(bench.queue)
    assert trigger.verify(bench.queue, prove=True) == []
    bench.track("t", "lyrics_acquired")
    bench.sql("UPDATE tracks SET has_audio = true")
    assert "AFTER UPDATE ON" in bench.sql(ours)[0][0]
    assert {row[1] for row in rows(bench)} == {"download", "align"}
