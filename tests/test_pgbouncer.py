"""The same through PgBouncer in transaction mode: each transaction may get another session."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import psycopg
import psycopg.conninfo
import pytest

from conftest import Bench, Fresh
from operating import many, operable
from servers import folder, own, serving
from test_batches import test_passing_troubles_are_outlived  # noqa: F401  run here once more, too
from test_runs import (  # noqa: F401  run here once more, with the bench of this module
    _small_batches,
    start,
    test_a_frozen_process_is_taken_over_and_changes_nothing_when_it_wakes,
    test_a_killed_run_is_refused_to_others,
    test_an_interrupt_or_stop_ends_the_run_after_the_batch_in_hand_and_says_how_to_resume,
    test_of_two_that_start_at_once_one_runs,
    tracks,
)

# Debian installs it where only root's PATH leads.
PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(
        PROGRAM is None and not os.environ.get("CI"),
        reason="pgbouncer is not installed (Debian's package of that name)",
    ),
]


@contextlib.contextmanager
def pgbouncer(url: str, lifetime: int = 0) -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode before the database of *url*, whose sessions live
    for *lifetime* seconds: with 0, for one transaction each."""
    assert PROGRAM is not None, "pgbouncer is required when CI is set: apt-get install pgbouncer"
    server = psycopg.conninfo.conninfo_to_dict(url)
    wanted = ("host", "port", "dbname", "user", "password")
    target = " ".join(f"{key}='{server[key]}'" for key in wanted if server.get(key))
    with folder() as home:
        sockets, file = own(home / "sockets"), home / "pgbouncer.ini"
        file.write_text(
            f"""
[databases]
{server["dbname"]} = {target}
[pgbouncer]
pool_mode = transaction
default_pool_size = 8
auth_type = any
listen_addr =
listen_port = 6432
unix_socket_dir = {sockets}
server_lifetime = {lifetime}
"""
        )
        file.chmod(0o644)
        through = f"postgresql://postgres@/{server['dbname']}?host={sockets}&port=6432"
        with serving(through, home / "log", PROGRAM, "-q", file):
            yield through


@pytest.fixture
def bench(fresh: Fresh) -> Iterator[Bench]:
    """A database whose URL leads through PgBouncer; ``bench.connection`` does not."""
    direct = fresh("b")
    with pgbouncer(direct.url) as through:
        yield Bench(through, "b", direct.connection, operable(through))


def connected(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True, prepare_threshold=None)


def test_every_transaction_has_a_session_of_its_own_here(bench: Bench) -> None:
    """Or the tests of this module would show nothing."""
    with connected(bench.url) as one, connected(bench.url) as two:
        pids = {c.execute("SELECT pg_backend_pid()").fetchone() for c in (one, two, one, two)}
    assert len(pids) == 4


def test_nothing_that_a_transaction_sets_is_left(fresh: Fresh) -> None:
    direct = fresh("b")
    many(direct, "audio_ready", 9)
    settings = ("lock_timeout", "statement_timeout", "transaction_read_only", "jit")
    ask = f"SELECT pg_backend_pid(), {', '.join(f'current_setting({name!r})' for name in settings)}"
    with pgbouncer(direct.url, lifetime=3600) as through:
        with connected(through) as connection:
            before = connection.execute(ask).fetchone()
        queue = operable(through)
        queue.backlog()
        queue.plan_backfill().apply(max_rows=9, pause=0).undo(pause=0)
        with connected(through) as connection:
            assert connection.execute(ask).fetchone() == before
