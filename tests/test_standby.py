"""Reads on a physical standby, while actions go to its primary; what the doctor says of one."""

import json
import re
from collections.abc import Iterator

import psycopg
import pytest

from conftest import Fresh
from examining import examine, fixes, one
from processes import until
from queue_insights import demo
from queue_insights.database import READ_URL, WRITE_URL
from reporting import queue_insights
from servers import embedded_programs, folder, own, run_as_server, running

pytestmark = pytest.mark.proof
SETTINGS = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[str, str]]:
    """The URLs of a primary and of its standby."""
    with folder() as home, demo.EmbeddedServer(home / "demo", SETTINGS) as primary:
        url, data = primary.url("postgres"), own(home / "standby")
        programs = embedded_programs(home / "demo")
        run_as_server(programs / "pg_basebackup", "-d", url, "-D", data, "-R", "-c", "fast")
        with running(programs, data, SETTINGS) as standby:
            with psycopg.connect(url) as connection:
                demo.create_schema(connection, "b")
            caught_up(url, standby)
            yield url, standby


def missing(url: str, **environment: str) -> int:
    done = queue_insights("backlog", "--format", "json", url=url, **environment)
    assert done.returncode == 0, done.stderr
    return sum(record["missing"] for record in json.loads(done.stdout))


def caught_up(primary: str, standby: str) -> None:
    with psycopg.connect(primary) as here, psycopg.connect(standby, autocommit=True) as there:
        (position,) = here.execute("SELECT pg_current_wal_lsn()").fetchone() or (None,)
        replayed = "SELECT pg_last_wal_replay_lsn() >= %s"
        until(lambda: there.execute(replayed, [position]).fetchone() == (True,), "the replay")


def test_reads_come_from_the_standby_and_actions_go_to_the_primary(pair: tuple[str, str]) -> None:
    primary, standby = pair
    with psycopg.connect(primary) as connection:
        connection.execute(
            "INSERT INTO tracks (spotify_track_id, title, artists, stage) "
            "SELECT 'song ' || i, 'Song', '[]', 'audio_ready' FROM generate_series(1, 9) i"
        )
    caught_up(primary, standby)
    assert missing(standby) == missing(primary) == 9
    done = queue_insights("backlog", "--format", "json", url=standby)
    assert re.fullmatch(r"queue-insights: read from a standby, \d+\.\d s behind\n", done.stderr)
    assert queue_insights("backlog", url=primary).stderr == ""
    both = {READ_URL: standby, WRITE_URL: primary}
    done = queue_insights("backfill", "--apply", "--max-rows", "100", "--limit", "2", **both)
    assert done.returncode == 0, done.stderr
    assert missing(primary) == 7
    caught_up(primary, standby)
    assert missing(standby) == 7
    assert queue_insights("undo", "1", **both).returncode == 0
    assert missing(primary) == 9
    for arguments in (["backfill", "--apply", "--max-rows", "9"], ["trigger", "install"]):
        done = queue_insights(*arguments, url=standby)
        assert done.returncode in (1, 2)
        (line,) = done.stderr.strip().splitlines()
        assert "read-only" in line or "standby" in line
        assert "QUEUE_INSIGHTS_WRITE_URL" in line


def test_a_standby_is_noted_for_reads_and_no_place_for_actions(
    pair: tuple[str, str], fresh: Fresh
) -> None:
    lines = examine(pair[1])
    assert re.match(r"note reads: .*, a standby: figures are \d+\.\d s old", lines[0])
    assert one(lines, "actions: ", "is a standby: name the primary in").startswith("note ")
    assert fixes(lines) == []
    assert one(examine(fresh("b").url, pair[1]), "actions: ", "is a standby").startswith("fix ")
