"""The incident, in a real Postgres that needs no installing: for the demo and for tests.

The tables of both variants, and the incident written into them by the scripts in sql/.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

import psycopg

from queue_insights.demo.server import EmbeddedServer
from queue_insights.errors import DemoError, InputError

TRACKS = 6_000
FEWEST, MOST = 1_000, 10_000_000
_SCHEMA = {"a": ("schema.sql",), "b": ("schema.sql", "migrate_a_to_b.sql")}
_SEED = (
    *("seed_begin.sql", "seed_plan.sql", "seed_history.sql", "seed_tracks.sql", "seed_tasks.sql"),
    *("seed_{variant}.sql", "seed_end.sql"),
)
_MARK = "queue-insights demo "  # begins the comment on our tracks, and only on ours
_MARKED = """
    SELECT num_nonnulls(to_regclass('tracks'), to_regclass('audio_tasks')),
           coalesce(obj_description(to_regclass('tracks'), 'pg_class'), '')
"""
_PARAMETERS = """
    CREATE TEMP TABLE seed_parameters ON COMMIT DROP AS
    SELECT coalesce(%s::timestamptz, date_trunc('minute', now())) AS anchor,
           %s::int AS tracks, %s::text AS variant
"""

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Seeded:
    """What a demo database holds; ``anchor`` is the moment (UTC) at which its history ends."""

    variant: str
    tracks: int
    anchor: datetime


def create_schema(connection: Connection, variant: str) -> None:
    """Create the empty tables, triggers and dashboard views of *variant*, "a" (by track) or "b"
    (by subject), in the current schema. The caller commits. Raises InputError for another."""
    if variant not in _SCHEMA:
        raise InputError(f"variant {variant!r} is not known; use 'a' or 'b'")
    _run(connection, *_SCHEMA[variant])
    connection.execute(f"COMMENT ON TABLE tracks IS '{_MARK}'")


def migrate(connection: Connection) -> None:
    """Turn variant A in the current schema, empty or not, into variant B. The caller commits."""
    _run(connection, "migrate_a_to_b.sql")


def seed(
    url: str, variant: str = "a", tracks: int = TRACKS, anchor: datetime | None = None
) -> None:
    """Write the incident into a database, replacing what an earlier seed or its users left there.

    It is 60 days of history that end at ``anchor`` (aware; default the current minute), and the
    backlog of that moment: exactly 50 tracks at audio_ready, none with an align row, nothing
    pending for align. Every count depends on ``variant`` and ``tracks`` only; times move with the
    anchor, while nights and weekends stay where the calendar (UTC) has them.

    Readers see all of the old or all of the new. Raises InputError for arguments that will not do;
    DemoError where the database cannot be reached, or its tables are in use or are no demo's.
    """
    if not isinstance(tracks, int) or not FEWEST <= tracks <= MOST:
        raise InputError(f"tracks must be a whole number from {FEWEST} to {MOST}, not {tracks!r}")
    if anchor is not None and anchor.utcoffset() is None:
        raise InputError(f"anchor {anchor} has no time zone; give an aware datetime")
    with _connected(url) as connection:
        _run(connection, "settings.sql")
        ((tables, comment),) = connection.execute(_MARKED)
        if comment.startswith(_MARK):
            _run(connection, "remove.sql")
        elif tables:
            raise DemoError("this database has such tables that are no demo's; use an empty one")
        create_schema(connection, variant)
        connection.execute(_PARAMETERS, [anchor, tracks, variant])
        _run(connection, *(script.format(variant=variant) for script in _SEED))
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM (ANALYZE) tracks, audio_tasks")


def seeded(url: str) -> Seeded | None:
    """What the last seed wrote into a database, or None if it holds no demo tables. Raises
    DemoError where the database cannot be reached."""
    with _connected(url) as connection:
        ((_, comment),) = connection.execute(_MARKED)
    if not comment.startswith(f"{_MARK}{{"):
        return None
    found = json.loads(comment.removeprefix(_MARK))
    return Seeded(found["variant"], found["tracks"], datetime.fromisoformat(found["anchor"]))


def default_url() -> str:
    """libpq URL of this user's demo database, seeded with the default if it never has been.

    Starts the embedded server; it runs until this process, and any other that uses it, has ended.
    Raises DemoError where it does not start.
    """
    server = _default_server().start()  # again, in case somebody stopped Postgres
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        # Two first users: one seeds, the other waits for it.
        connection.execute("SELECT pg_advisory_lock(hashtext('queue-insights demo'))")
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'demo'").fetchone():
            connection.execute("CREATE DATABASE demo")
        if seeded(server.url("demo")) is None:
            seed(server.url("demo"))
    return server.url("demo")


_default_server = functools.cache(EmbeddedServer)


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Connection]:
    try:
        with psycopg.connect(url, application_name="queue-insights demo") as connection:
            yield connection
    except psycopg.errors.LockNotAvailable:
        raise DemoError("the demo's tables are in use; end the session that uses them") from None
    except psycopg.Error as error:
        raise DemoError(f"the demo's database failed: {str(error).splitlines()[0]}") from None


def _run(connection: Connection, *scripts: str) -> None:
    for script in scripts:
        connection.execute(files(__package__).joinpath("sql", script).read_bytes())
