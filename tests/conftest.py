"""Real databases for tests: fresh ones, cloned from a template of each variant.

The server is the embedded one, or the one that QUEUE_INSIGHTS_TEST_URL names (a superuser there).
"""

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from queue_insights import demo, pipeline
from queue_insights.database import LIBPQ, READ_URL, WRITE_URL, Database
from queue_insights.queue import Queue

for name in ("default", "proof"):  # `make proof` chooses the second: fuzzing.cases
    settings.register_profile(name, deadline=None, print_blob=True)
settings.load_profile("default")
# As report/execution.py does it, before a test imports nbformat: the import takes two seconds.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

Url = Callable[[str], str]
# Of the shipped pipeline: each task, in order, with the stage at which it is due.
STAGE_OF = {
    **{"download": "lyrics_acquired", "align": "audio_ready", "translate": "aligned"},
    **{"separate": "translated", "segment": "separated", "enhance": "segmented"},
    "clip": "enhanced",
}
TASKS = list(STAGE_OF)
# Two tasks at one stage, which both lead to the next; an own limit for one; a stage without work.
FORKED = """
name: forked
tracks: {table: tracks, id: spotify_track_id}
tasks: {table: audio_tasks, track_id: spotify_track_id}
stages: [pending, lyrics_acquired, audio_ready, aligned, translated, ready, failed]
terminal: [ready, failed]
stuck_after: 2h
steps:
  - {stage: lyrics_acquired, task: download}
  - {stage: audio_ready, task: align}
  - {stage: audio_ready, task: translate, stuck_after: 30m}
  - {stage: translated, task: segment}
"""
# Files that take long, begun first: begun last, one worker would wait for the other.
LONG = (
    *("test_airflow", "test_release", "test_kill", "test_lab", "test_browser"),
    *("test_live_workers", "test_grants", "test_changes", "test_report", "test_everywhere"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


@dataclass
class Bench:
    """One fresh database of a variant: its URL, an autocommit superuser connection, its queue."""

    url: str
    variant: str
    connection: psycopg.Connection[Any]
    queue: Queue

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(query, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def track(self, id: str, stage: str, title: str | None = None) -> str:
        self.sql(
            "INSERT INTO tracks (spotify_track_id, title, stage, artists) "
            "VALUES (%s, %s, %s, '[]')",
            id,
            title or f"Song {id}",
            stage,
        )
        return id

    def task(self, track: str, task_type: str, status: str = "pending", **columns: Any) -> int:
        """Insert a row about a track; values may be ``sql.SQL`` expressions."""
        values: dict[str, Any] = {"spotify_track_id": track, "task_type": task_type}
        if self.variant == "b":
            values |= {"subject_type": "track", "subject_id": track}
        values |= {"status": status, **columns}
        statement = sql.SQL("INSERT INTO audio_tasks ({}) VALUES ({}) RETURNING id").format(
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(
                v if isinstance(v, sql.Composable) else sql.Literal(v) for v in values.values()
            ),
        )
        row = self.connection.execute(statement).fetchone()
        assert row is not None
        return int(row[0])


Fresh = Callable[[str], Bench]


def tracks_as_view(bench: Bench, stage: str) -> None:
    """Make ``tracks`` a view, with the expression *stage* for the stage."""
    bench.sql("ALTER TABLE tracks RENAME TO tracks_table")
    columns = f"spotify_track_id, title, updated_at, {stage} AS stage"
    bench.sql(f"CREATE VIEW tracks AS SELECT {columns} FROM tracks_table")


@contextmanager
def database(server: Url, template: str = "template1", options: str = "") -> Iterator[str]:
    """The URL of a new database with what is in *template*; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    names = map(sql.Identifier, (name, template))
    with psycopg.connect(server("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL(f"CREATE DATABASE {{}} TEMPLATE {{}} {options}").format(*names))
    try:
        yield server(name)
    finally:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        # Whatever PGOPTIONS a test has set: dropping waits for a checkpoint.
        patient = {"autocommit": True, "options": "-c statement_timeout=0"}
        with psycopg.connect(server("postgres"), **patient) as admin:
            admin.execute(drop)


@pytest.fixture(autouse=True)
def _no_database_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (READ_URL, WRITE_URL, "PGPASSWORD", *LIBPQ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def server() -> Iterator[Url]:
    """From the name of a database to its URL, on a server that tests may do anything to."""
    if given := os.environ.get("QUEUE_INSIGHTS_TEST_URL"):
        parts = urlsplit(given)
        yield lambda name: urlunsplit(parts._replace(path=f"/{name}"))
        return
    folder = tempfile.mkdtemp(prefix="queue-insights-test-", dir="/var/tmp")
    try:
        with demo.EmbeddedServer(folder) as embedded:
            yield embedded.url
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def templates(server: Url) -> Iterator[dict[str, str]]:
    """A database with the empty tables of each variant, to clone from."""
    names = {variant: f"template_{variant}_{uuid.uuid4().hex[:8]}" for variant in "ab"}
    with psycopg.connect(server("postgres"), autocommit=True) as admin:
        for variant, name in names.items():
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            with psycopg.connect(server(name)) as connection:
                demo.create_schema(connection, variant)
        yield names
        for name in names.values():
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def fresh(server: Url, templates: dict[str, str]) -> Iterator[Fresh]:
    """Make a Bench of a variant; its database is dropped afterwards."""
    with ExitStack() as ends:

        def make(variant: str) -> Bench:
            url = ends.enter_context(database(server, templates[variant]))
            connection = ends.enter_context(closing(psycopg.connect(url, autocommit=True)))
            return Bench(url, variant, connection, Queue(Database(url), pipeline.load()))

        yield make


@pytest.fixture(scope="module", params=["a", "b"])
def history_url(request: pytest.FixtureRequest, server: Url) -> Iterator[str]:
    """The URL of a database with the demo's sixty days in it; to be read only."""
    with database(server) as url:
        demo.seed(url, request.param, 3000)
        yield url


@pytest.fixture(scope="module")
def history(history_url: str) -> Queue:
    return Queue(Database(history_url), pipeline.load())


@pytest.fixture(params=["a", "b"])
def bench(request: pytest.FixtureRequest, fresh: Fresh) -> Bench:
    """A fresh database; the test runs once on each variant."""
    return fresh(request.param)
