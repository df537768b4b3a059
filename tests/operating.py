"""What the tests of actions share: a queue to operate on, its rows, a record of every change."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from conftest import Bench
from queue_insights import pipeline
from queue_insights.actions import pace
from queue_insights.cli import main
from queue_insights.database import READ_URL, Database
from queue_insights.queue import Queue

Patch = pytest.MonkeyPatch
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
LONG_AGO = "now() - interval '5 hours'"
STUCK = {"attempts": "2", "last_attempt_at": LONG_AGO}
# What each action takes: stage, task, and the row, in SQL.
WORK: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "backfill": ("audio_ready", "align", "", {}),
    "reset": ("aligned", "translate", "running", STUCK),
    "retry": ("translated", "separate", "failed", {"attempts": "3"}),
    "requeue": ("segmented", "enhance", "completed", {"completed_at": LONG_AGO}),
    "prune": ("ready", "clip", "pending", {"metadata": "'null'"}),
}

pace.REST = 0.0  # most tests have nobody else at their tables


def small_batches(patch: Patch, chunk: int, first: int, largest: int) -> None:
    """Runs take *chunk* rows at a time, in a batch *first* times at first and *largest* at most."""
    patch.setattr(pace, "CHUNK", chunk)
    patch.setattr(pace, "FIRST", first)
    patch.setattr(pace, "LARGEST", largest)


def operable(url: str, file: str | Path = pipeline.DEFAULT, write_url: str | None = None) -> Queue:
    return Queue(Database(url, write_url), pipeline.load(file))


def command(
    url: str | None, *arguments: str, input: str | bytes | None = None, **environment: str
) -> Result:
    """Run the CLI in this process, which spares it the imports; what is no exit is raised. Without
    a *url* the database is the environment's."""
    given = environment if url is None else {READ_URL: url, **environment}
    result = CliRunner(env=given).invoke(main, arguments, input, prog_name="queue-insights")
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result


def edited(folder: Path, old: str, new: str) -> Path:
    """A copy of the shipped pipeline file with *new* in place of *old*."""
    shipped = Path("params/pipelines/karaoke.yaml").read_text()
    assert old in shipped
    file = folder / "edited.yaml"
    file.write_text(shipped.replace(old, new, 1))
    return file


def rows(connection: psycopg.Connection[Any]) -> dict[int, str]:
    """All task rows but for updated_at, exactly: JSON null is not SQL null."""
    found = connection.execute(
        "SELECT id, (to_jsonb(t) - 'updated_at')::text || coalesce(metadata::text, '-') "
        "|| coalesce(error_details::text, '-') FROM audio_tasks t"
    )
    return dict(found.fetchall())


def everything(connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """All that an action may have written: task rows, tracks, ledger."""
    found: list[Any] = []
    for table in ("tracks", "audio_tasks", "queue_insights.runs"):
        try:
            query = f"SELECT each::text FROM {table} AS each ORDER BY 1"
            found.append(connection.execute(query).fetchall())
        except psycopg.errors.UndefinedTable:
            found.append(None)
    return tuple(found)


def pending(bench: Bench, task: str) -> list[str]:
    """What the application's getPendingTasks returns: track ids, in its order."""
    found = bench.sql(
        "SELECT spotify_track_id FROM audio_tasks JOIN tracks USING (spotify_track_id) "
        "WHERE status = 'pending' AND task_type = %s ORDER BY audio_tasks.created_at",
        task,
    )
    return [track for (track,) in found]


def many(bench: Bench, stage: str, count: int, prefix: str = "t") -> list[str]:
    """*count* tracks at *stage* without a row, whose order of arrival is not that of their ids
    nor of their rows; the ids in order of arrival."""
    found = bench.sql(
        "INSERT INTO tracks (spotify_track_id, title, artists, stage, updated_at) "
        "SELECT %s || i, 'Song ' || i, '[]', %s, now() - make_interval(mins => 10 + "
        "(i * 7919 %% 10007)) FROM generate_series(1, %s) i RETURNING updated_at, spotify_track_id",
        *(prefix, stage, count),
    )
    return [track for _, track in sorted(found)]


def give_rows(bench: Bench, tracks: Iterable[str], task: str, status: str, **columns: str) -> None:
    """One task row for each of *tracks*; *columns* are SQL expressions."""
    columns = {"task_type": f"'{task}'", "status": f"'{status}'", **columns}
    if bench.variant == "b":
        columns |= {"subject_type": "'track'", "subject_id": "track"}
    bench.sql(
        f"INSERT INTO audio_tasks (spotify_track_id, {', '.join(columns)}) "
        f"SELECT track, {', '.join(columns.values())} FROM unnest(%s::text[]) AS track",
        list(tracks),
    )


def work(bench: Bench, count: int) -> dict[str, list[str]]:
    """*count* tracks for each action to take; their ids, in order of arrival."""
    made = {name: many(bench, stage, count, f"{name} ") for name, (stage, *_) in WORK.items()}
    for name, (_, task, status, columns) in WORK.items():
        if status:
            give_rows(bench, made[name], task, status, **columns)
    return made


def video(bench: Bench, task: str, status: str = "pending") -> None:
    """A row about a video, which is not ours: only in variant B."""
    if bench.variant == "b":
        bench.sql(
            "INSERT INTO audio_tasks (subject_type, subject_id, task_type, status, attempts, "
            "last_attempt_at) VALUES ('tiktok_video', %s, %s, %s, 1, now() - interval '9 h')",
            *(f"video {task} {status}", task, status),
        )


def objects(bench: Bench) -> set[tuple[Any, ...]]:
    """All that there is beside rows: functions, triggers, relations, schemas."""
    return set(bench.sql(OBJECTS))


def ledger_agrees(bench: Bench, run: int) -> None:
    """The run's counts are those of its batches, no row is in two of them, nothing is left."""
    ((done, dropped, listed, distinct, listed_drops, left),) = bench.sql(
        """
        SELECT rows_done, rows_dropped, n, distinct_ids, drops,
               (SELECT count(*) FROM queue_insights.targets t WHERE t.run = r.run)
        FROM queue_insights.runs r, LATERAL (
            SELECT count(id) AS n, count(DISTINCT id) AS distinct_ids FROM queue_insights.batches b
            LEFT JOIN LATERAL unnest(ids) AS id ON true WHERE b.run = r.run) done, LATERAL (
            SELECT coalesce(sum(jsonb_array_length(dropped)), 0) AS drops
            FROM queue_insights.batches b WHERE b.run = r.run) drops
        WHERE run = %s
        """,
        run,
    )
    assert listed == distinct == done
    assert (listed_drops, left) == (dropped, 0)
