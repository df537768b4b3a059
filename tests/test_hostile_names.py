"""Names in the tables and in the pipeline file that would be SQL if they were not quoted."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from conftest import Bench
from operating import operable
from queue_insights import doctor
from queue_insights.ddl import trigger, views
from queue_insights.queue import Queue
from queue_insights.reads import READS

SCHEMA = 'sch.ema"; DROP TABLE tracks; --'
TABLES = {"tracks": "tr'acks %s %(x)s", "audio_tasks": 'ta"sks\\ {0} {x}'}
COLUMNS = {
    "tracks": {
        "spotify_track_id": "id:track :param",
        "title": "ti`tle $1 $$",
        "stage": "stage; SELECT pg_sleep(9)",
        "updated_at": "über ünïcode 🎵",
    },
    "audio_tasks": {
        "spotify_track_id": "track%%id",
        "status": 'sta"tus',
        "next_retry_at": "next\\retry E'\\'",
        "completed_at": "done :at",
    },
}
WORK, MORE, DONE = "lyrics'; DROP TABLE tracks; --", 'audio\\ready" :x %s %(y)s', "rea\ndy"
FIRST, SECOND = "do'; DELETE FROM tracks; --", "al\\ign %d :task \"' \\' ${x}"
TRACK = "id'); DROP TABLE tracks; -- {} "


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """Two tracks at the first step, one of them with a row, which also has an orphan; one at the
    second; and the tables renamed under their owner's feet."""
    bench.sql("ALTER TABLE tracks DROP CONSTRAINT tracks_stage_check")
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_task_type_check")
    bench.sql("DROP VIEW task_summary, audio_progress")
    bench.sql("CREATE TABLE bait ()")
    for i, stage in enumerate([WORK, WORK, MORE, DONE]):
        bench.track(f"{TRACK}{i}", stage, "title'; DROP TABLE tracks; --")
    bench.task(f"{TRACK}0", FIRST)
    bench.task(f"{TRACK}0", SECOND, status="failed")
    execute(bench, "CREATE SCHEMA {}", SCHEMA)
    for table, columns in COLUMNS.items():
        for old, new in columns.items():
            execute(bench, "ALTER TABLE {} RENAME COLUMN {} TO {}", table, old, new)
        execute(bench, "ALTER TABLE {} RENAME TO {}", table, TABLES[table])
        execute(bench, "ALTER TABLE {} SET SCHEMA {}", TABLES[table], SCHEMA)
    # The application's own triggers do not survive what was renamed.
    execute(bench, "DROP TRIGGER tracks_set_updated_at ON {}.{}", SCHEMA, TABLES["tracks"])
    execute(bench, "ALTER TABLE {}.{} DISABLE TRIGGER USER", SCHEMA, TABLES["audio_tasks"])
    return bench


def execute(bench: Bench, statement: str, *names: str, **values: str) -> None:
    literals = {name: sql.Literal(value) for name, value in values.items()}
    named = sql.SQL(statement).format(*map(sql.Identifier, names), **literals)
    bench.connection.execute(named)


@pytest.fixture
def queue(bench: Bench, tmp_path: Path) -> Queue:
    def table(name: str) -> str:
        return ".".join('"' + part.replace('"', '""') + '"' for part in (SCHEMA, TABLES[name]))

    columns: dict[str, dict[str, Any]] = {name: dict(c) for name, c in COLUMNS.items()}
    columns["tracks"]["id"] = columns["tracks"].pop("spotify_track_id")
    columns["audio_tasks"]["track_id"] = columns["audio_tasks"].pop("spotify_track_id")
    content = {
        "name": "x'; DROP TABLE bait; --",
        "tracks": {"table": table("tracks"), **columns["tracks"]},
        "tasks": {"table": table("audio_tasks"), **columns["audio_tasks"]},
        "stages": [WORK, MORE, DONE],
        "terminal": [DONE],
        "steps": [{"stage": WORK, "task": FIRST}, {"stage": MORE, "task": SECOND}],
    }
    file = tmp_path / "hostile.yaml"
    file.write_text(json.dumps(content, ensure_ascii=False))
    return operable(bench.url, file)


def test_for_reads_and_doctor_they_are_names_and_printed_sql_is_one_statement_as_plain_text(
    bench: Bench, queue: Queue
) -> None:
    id = COLUMNS["tracks"]["spotify_track_id"]
    backlog, audit = queue.backlog(), queue.audit(sources=True)
    columns = ["stage", "task_type", "total", "missing", "pending", "visible"]
    assert backlog[columns].values.tolist() == [
        [WORK, FIRST, 2, 1, 1, 1],
        [MORE, SECOND, 1, 1, 0, 0],
    ]
    assert audit[["orphans", "get_pending_tasks"]].values.tolist() == [[0, 1], [1, 0]]
    assert list(queue.missing()[id]) == [f"{TRACK}1", f"{TRACK}2"]
    assert list(queue.upcoming(FIRST, limit=1).title) == ["title'; DROP TABLE tracks; --"]
    assert list(queue.tasks("pending")[id]) == list(queue.orphans()[id]) == [f"{TRACK}0"]
    assert COLUMNS["audio_tasks"]["next_retry_at"] in queue.tasks().columns
    for read in (queue.eta, queue.durations):
        assert list(read().waiting) == list(backlog.waiting)
    last = queue.flow("1D", "1h").tail(2)
    assert (last.depth + last.arrivals - last.departures).tolist() == list(backlog.total)
    with queue.snapshot() as moment:
        for read in READS:
            given = {"id": f"{TRACK}0"} if read == "track" else {}
            text = queue._query(read, **given).sql
            driver = moment.connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            # Binary results take the protocol in which Postgres refuses a second statement.
            rows = driver.cursor(binary=True).execute(text).fetchall()
            assert len(rows) == len(getattr(queue, read)(**given))
            assert rows or read == "failures"  # of a track that stands elsewhere
    assert "fix" not in {found.level for found in doctor.examine(queue)}
    execute(bench, "DROP INDEX {}.tracks_stage_idx", SCHEMA)
    (fix,) = [found.text for found in doctor.examine(queue) if found.level == "fix"]
    bench.sql(fix[fix.index("CREATE INDEX") :])
    assert "fix" not in {found.level for found in doctor.examine(queue)}
    left = "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', %s)"
    assert bench.sql(left, SCHEMA) == [(3,)]


def test_for_actions_and_their_undo_they_are_names(bench: Bench, queue: Queue) -> None:
    names = (SCHEMA, TABLES["audio_tasks"], COLUMNS["audio_tasks"]["status"])
    assert queue.plan_prune(status="failed").apply(max_rows=1).undo().row["rows_undone"] == 1
    assert queue.plan_backfill().apply(max_rows=2).row["rows_done"] == 2
    for action, of in (("reset", "running"), ("retry", "failed"), ("requeue", "completed")):
        execute(bench, "UPDATE {}.{} SET {} = {of}", *names, of=of)
        plan = queue.plan(action)
        run = plan.apply(confirm=plan.token)
        assert len(queue.tasks("pending")) == run.row["rows_done"] == plan.rows == 3
        assert run.undo().row["rows_undone"] == 3
    assert len(queue.tasks("drifted")) == 3


def test_for_trigger_and_views_they_are_names(bench: Bench, queue: Queue) -> None:
    trigger.install(queue)
    views.install(queue)
    assert trigger.verify(queue, prove=True) == []
    assert views.verify(queue) == []
    columns = COLUMNS["tracks"]
    names = (SCHEMA, TABLES["tracks"], columns["stage"], columns["spotify_track_id"])
    for number, to in ((3, MORE), (2, WORK)):
        track = f"{TRACK}{number}"
        execute(bench, "UPDATE {}.{} SET {} = {to} WHERE {} = {track}", *names, to=to, track=track)
    assert list(queue.tasks("pending", SECOND)[names[3]]) == [f"{TRACK}3"]
    assert f"{TRACK}2" in list(queue.tasks("pending", FIRST)[names[3]])
    assert bench.sql("SELECT count(*) FROM bait") == [(0,)]
    trigger.uninstall(queue)
    views.uninstall(queue)
    for module in (trigger, views):  # the printed migrations run as plain text
        text = module.generate(queue).text()
        bench.connection.execute(text.encode())
        assert module.verify(queue) == []
        down = [line.removeprefix("--down ") for line in text.split("\n") if line[:6] == "--down"]
        bench.connection.execute("\n".join(down).encode())
        assert module.verify(queue) != []
