"""Other servers than the embedded one: Debian's PostgreSQL 15, a standby.

As a script: ``servers.py COMMAND ...`` runs the command with QUEUE_INSIGHTS_TEST_URL naming a
PostgreSQL 15 of its own, for the database tests.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg

from processes import until
from queue_insights.demo import binaries

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "dynamic_shared_memory_type": "mmap",
}


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for a server that does not run as root, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="queue-insights-server-", dir="/var/tmp"))
    try:
        path.chmod(0o711)
        yield path
    finally:
        shutil.rmtree(path)


def run_as_server(*command: str | Path) -> None:
    """Run a program of Postgres', as nobody where we are root."""
    done = subprocess.run(
        command, cwd="/", user=_user(), group=_user(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def embedded_programs(home: Path) -> Path:
    """The programs of the embedded server in *home*."""
    return binaries.installed() if _user() is None else binaries.copied_to(home)


def _user() -> int | None:
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def own(path: Path) -> Path:
    """Make the folder *path*, the server's own."""
    path.mkdir(mode=0o700)
    if (user := _user()) is not None:
        os.chown(path, user, user)
    return path


@contextlib.contextmanager
def serving(url: str, log: Path, *command: str | Path) -> Iterator[str]:
    """*url*, while the program that *command* starts answers there, as nobody where we are root."""
    with log.open("w") as output:
        program = subprocess.Popen(
            command, cwd="/", user=_user(), group=_user(), stdout=output, stderr=output
        )

        def answers() -> bool:
            assert program.poll() is None, log.read_text()
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(url).close()
                return True
            return False

        try:
            until(answers, f"{command[0]} to answer")
            yield url
        finally:
            program.terminate()  # a smart shutdown would wait for our own pools
            program.send_signal(2)
            program.wait(60)


@contextlib.contextmanager
def running(programs: Path, data: Path, settings: Mapping[str, str] = SETTINGS) -> Iterator[str]:
    """The URL of the server of *data*, while it runs."""
    sockets = own(data.with_name(f"{data.name}-socket"))
    switches = [f"-c{name}={value}" for name, value in (SETTINGS | dict(settings)).items()]
    url, log = f"postgresql://postgres@/postgres?host={sockets}", data.with_name(f"{data.name}.log")
    with serving(url, log, programs / "postgres", "-D", data, "-k", sockets, *switches):
        yield url


@contextlib.contextmanager
def debian_15() -> Iterator[str]:
    """The URL of a PostgreSQL 15 of Debian's, with nothing in it."""
    assert DEBIAN_15.exists(), "apt-get install postgresql-15"
    with folder() as home:
        data = own(home / "data")
        initdb = (DEBIAN_15 / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N")
        run_as_server(*initdb, "-E", "UTF8", "--locale=C.UTF-8")
        # Databases are made and dropped all the time, with a checkpoint each.
        quick = {"full_page_writes": "off", "synchronous_commit": "off", "max_wal_size": "4GB"}
        with running(DEBIAN_15, data, quick | {"shared_buffers": "256MB"}) as url:
            yield url


if __name__ == "__main__":
    with debian_15() as url:
        environment = {**os.environ, "QUEUE_INSIGHTS_TEST_URL": url}
        sys.exit(subprocess.run(sys.argv[1:], env=environment).returncode)
