"""The tables of both variants, and the incident written into them by the scripts in sql/."""

import contextlib
import functools
import json
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any, Literal

import psycopg
from psycopg import sql

from queue_insights.demo.server import EmbeddedServer
from queue_insights.errors import DemoError, InputError

DATABASE = "demo"
TRACKS = 6_000
FEWEST, MOST = 1_000, 10_000_000
SCHEMA = {"a": ("schema.sql",), "b": ("schema.sql", "migrate_a_to_b.sql")}
SEED = ("seed_plan.sql", "seed_history.sql", "seed_tracks.sql", "seed_tasks.sql")
REMOVE_TABLES = """
    DROP TABLE IF EXISTS audio_tasks, tracks CASCADE;
    DROP FUNCTION IF EXISTS set_updated_at();
"""
SETTINGS = """
    SET LOCAL timezone = 'UTC';
    SET LOCAL lock_timeout = '3s';
    SET LOCAL statement_timeout = 0;
    SET LOCAL client_min_messages = warning;
    SET LOCAL temp_buffers = '64MB';
    SET LOCAL work_mem = '128MB';
    SET LOCAL maintenance_work_mem = '256MB';
"""
PARAMETERS = """
    CREATE TEMP TABLE seed_parameters ON COMMIT DROP AS
    SELECT coalesce(%s::timestamptz, date_trunc('minute', now())) AS anchor,
           %s::int AS tracks, %s::text AS variant
"""
# What makes the indexes and keys as they are, and what removes them: they are built after the rows,
# which is several times faster than row by row.
KEYS = """
    SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname,
                  pg_get_constraintdef(oid)) AS creation,
           format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
           CASE contype WHEN 'f' THEN 3 ELSE 1 END AS turn
    FROM pg_constraint
    WHERE conrelid IN ('tracks'::regclass, 'audio_tasks'::regclass) AND contype IN ('p', 'u', 'f')
    UNION ALL
    SELECT pg_get_indexdef(indexrelid), format('DROP INDEX %s', indexrelid::regclass), 2
    FROM pg_index
    WHERE indrelid IN ('tracks'::regclass, 'audio_tasks'::regclass)
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    ORDER BY turn, creation
"""
NEXT_ID = "SELECT setval(pg_get_serial_sequence('audio_tasks', 'id'), max(id)) FROM audio_tasks"
HOLDERS = """
    SELECT DISTINCT format('pid %s (%s)', pid, concat_ws(', ', nullif(application_name, ''), state))
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE relation IN (to_regclass('tracks'), to_regclass('audio_tasks')) AND granted
      AND pid <> pg_backend_pid()
"""

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Seeded:
    """What a demo database holds; ``anchor`` is the moment (UTC) at which its history ends."""

    variant: str
    tracks: int
    anchor: datetime


def create_schema(connection: Connection, variant: str) -> None:
    """Create the empty tables, triggers and dashboard views of a variant in the current schema.

    ``variant``: "a" (by track) or "b" (by subject: variant A, then its migration). The caller
    commits. Raises InputError for any other variant.
    """
    if variant not in SCHEMA:
        raise InputError(f"variant {variant!r} is not known; use 'a' or 'b'")
    _run(connection, *SCHEMA[variant])


def migrate(connection: Connection) -> None:
    """Turn variant A in the current schema, empty or not, into variant B. The caller commits."""
    _run(connection, "migrate_a_to_b.sql")


def seed(
    url: str,
    variant: Literal["a", "b"] | str = "a",
    tracks: int = TRACKS,
    anchor: datetime | None = None,
) -> None:
    """Write the incident into a database, replacing what an earlier seed or its users left there.

    60 days of history that end at ``anchor`` (aware; default the current minute), and the backlog
    of that moment: exactly 50 tracks at audio_ready, none with an align row, nothing pending for
    align. Every count depends on ``variant`` and ``tracks`` only; times move with the anchor, while
    nights and weekends stay where the calendar (UTC) has them.

    One transaction: readers see all of the old or all of the new. Raises InputError for arguments
    that will not do; DemoError where the database cannot be reached, its tables are in use, or hold
    rows that no seed wrote.

    >>> seed(server.url("demo"), variant="b", tracks=1_000_000)
    """
    if not isinstance(tracks, int) or not FEWEST <= tracks <= MOST:
        raise InputError(f"tracks must be a whole number from {FEWEST} to {MOST}, not {tracks!r}")
    if anchor is not None and anchor.utcoffset() is None:
        raise InputError(f"anchor {anchor} has no time zone; give an aware datetime")
    try:
        with psycopg.connect(url, application_name="queue-insights seed") as connection:
            _fill(connection, variant, tracks, anchor)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE) tracks, audio_tasks")
    except psycopg.errors.LockNotAvailable:
        raise DemoError(
            f"the demo's tables are in use by {_holders(url)}; end that first"
        ) from None
    except psycopg.Error as error:
        raise DemoError(f"cannot seed the demo database: {_first_line(error)}") from None


def seeded(url: str) -> Seeded | None:
    """What the last seed wrote into a database, or None if it holds no demo tables.

    Raises DemoError where the database cannot be reached.
    """
    try:
        with psycopg.connect(url) as connection:
            return _read_marker(connection)
    except psycopg.OperationalError as error:
        raise DemoError(f"cannot read the demo database: {_first_line(error)}") from None


def default_url() -> str:
    """libpq URL of this user's demo database, seeded with the default if it never has been.

    Starts the embedded server; it runs until this process, and any other that uses it, has ended.
    Raises DemoError where it does not start.
    """
    server = _default_server().start()  # again, in case somebody stopped Postgres
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        # Two first users: one seeds, the other waits for it.
        connection.execute("SELECT pg_advisory_lock(hashtext('queue-insights demo'))")
        named = "SELECT FROM pg_database WHERE datname = %s"
        if connection.execute(named, [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        url = server.url(DATABASE)
        if seeded(url) is None:
            seed(url)
    return url


@functools.cache
def _default_server() -> EmbeddedServer:
    return EmbeddedServer()


def _fill(connection: Connection, variant: str, tracks: int, anchor: datetime | None) -> None:
    connection.execute(SETTINGS)
    if _read_marker(connection) is not None:
        connection.execute("DROP SCHEMA IF EXISTS queue_insights CASCADE")
    elif _holds_rows(connection):
        raise DemoError("this database has tracks or tasks that are no demo's; name an empty one")
    connection.execute(REMOVE_TABLES)
    create_schema(connection, variant)
    connection.execute(PARAMETERS, [anchor, tracks, variant])
    keys = connection.execute(KEYS).fetchall()
    for _, removal, _ in reversed(keys):
        connection.execute(removal.encode())
    _run(connection, *SEED, f"seed_{variant}.sql")
    for creation, _, _ in keys:
        connection.execute(creation.encode())
    connection.execute(NEXT_ID)
    row = connection.execute("SELECT anchor FROM seed_parameters").fetchone()
    assert row is not None
    marker = json.dumps({"variant": variant, "tracks": tracks, "anchor": row[0].isoformat()})
    comment = sql.SQL("COMMENT ON TABLE tracks IS {}").format(f"queue-insights demo {marker}")
    connection.execute(comment)


def _run(connection: Connection, *scripts: str) -> None:
    for script in scripts:
        connection.execute(files(__package__).joinpath("sql", script).read_bytes())


def _read_marker(connection: Connection) -> Seeded | None:
    """The marker is on the table itself, so that it cannot outlive what it describes."""
    row = connection.execute("SELECT obj_description(to_regclass('tracks'), 'pg_class')").fetchone()
    start = "queue-insights demo "
    if row is None or row[0] is None or not row[0].startswith(start):
        return None
    marker = json.loads(row[0].removeprefix(start))
    return Seeded(marker["variant"], marker["tracks"], datetime.fromisoformat(marker["anchor"]))


def _holds_rows(connection: Connection) -> bool:
    for table in ("tracks", "audio_tasks"):
        any_row = sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(table))
        with contextlib.suppress(psycopg.errors.UndefinedTable), connection.transaction():
            if connection.execute(any_row).fetchone() is not None:
                return True
    return False


def _holders(url: str) -> str:
    with psycopg.connect(url) as connection:
        return ", ".join(row[0] for row in connection.execute(HOLDERS)) or "another session"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
