"""The embedded server: who may use it, how long it lives, and what it leaves alone."""

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import queue_insights
from processes import children, ended
from queue_insights.demo import EmbeddedServer
from queue_insights.errors import DemoError

CLIENT = """
import sys, subprocess
from queue_insights.demo import EmbeddedServer
server = EmbeddedServer(sys.argv[1]).start()
print(server.postmaster_pid, flush=True)
"""
PACKAGES = [Path(module.__file__).parents[1] for module in (queue_insights, psycopg)]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(map(str, PACKAGES)), "PATH": os.defpath}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


@pytest.fixture
def base() -> Iterator[Path]:
    """Not tmp_path: that lies below a 0700 folder, which root's Postgres could not enter."""
    base = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="qi-test-"))
    base.chmod(0o755)
    yield base
    all_gone(base)
    shutil.rmtree(base)


@pytest.fixture
def folder(base: Path) -> Path:
    """Where a server may go; nothing is there yet."""
    return base / "server"


@pytest.fixture(scope="module")
def kept_folder() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="qi-test-"))
    base.chmod(0o755)
    yield base / "server"
    shutil.rmtree(base)


@pytest.fixture
def used(kept_folder: Path) -> Iterator[Path]:
    """A folder that tests share one after the other, which spares them the initdb."""
    yield kept_folder
    all_gone(kept_folder)


def programs(folder: Path) -> dict[int, str]:
    """Keepers and Postgres whose command line names the folder: by pid."""
    command = ["ps", "-e", "-ww", "-o", "pid=,args="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        int(line.split()[0]): line
        for line in listing.splitlines()
        if str(folder) in line and ("keeper.py" in line or " -D " in line)
    }


def held_locks(folder: Path) -> list[Path]:
    """What those programs, or children of Postgres, still hold."""
    locks = [lock for name in ("keeper.lock", "running.lock") for lock in folder.rglob(name)]
    return [lock for lock in locks if not is_free(lock)]


def left_running(folder: Path) -> list[str]:
    return [*programs(folder).values(), *map(str, held_locks(folder))]


def all_gone(folder: Path) -> None:
    """Return once nothing is left running."""
    while left_running(folder):  # again only if some were replaced by others
        for pid, program in programs(folder).items():
            assert ended(pid, within=30), f"waited 30 s for {program}"
        for lock in held_locks(folder):
            let_go(lock)


def let_go(lock: Path) -> None:
    """Return once nobody holds it."""
    with children() as start, lock.open() as file:
        waiting = start(lambda: fcntl.flock(file, fcntl.LOCK_EX))
        assert waiting.ends_within(30), f"waited 30 s for {lock}"


def is_free(lock: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def client(
    folder: Path, then: str = "sys.stdin.read()", python: str = sys.executable, **options: Any
) -> "subprocess.Popen[str]":
    """A process that starts the server, prints Postgres' pid, then does something, or waits."""
    return subprocess.Popen(
        [python, "-c", CLIENT + then, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


def started(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def end(process: "subprocess.Popen[str]", how: int = signal.SIGKILL) -> None:
    process.send_signal(how)
    process.communicate()


def ask(server: EmbeddedServer, query: str) -> object:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return row[0] if row else None


def do(server: EmbeddedServer, statement: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)


def test_keeps_its_data_between_two_runs_and_listens_on_no_port(used: Path) -> None:
    with EmbeddedServer(used) as server:
        do(server, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 7 AS n")
        assert ask(server, "SHOW listen_addresses") == ""
        assert ask(server, "SHOW timezone") == "UTC"
    assert not left_running(used)
    with EmbeddedServer(used, settings={"work_mem": "7MB"}) as server:
        assert ask(server, "SELECT n FROM kept") == 7
        assert ask(server, "SHOW work_mem") == "7MB"


def test_stops_when_its_last_client_is_killed_and_not_before(used: Path) -> None:
    first, second = client(used), client(used)
    assert started(first) == started(second)
    end(first)
    third = client(used)
    started(third)
    end(second)
    with psycopg.connect(EmbeddedServer(used).url("postgres")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    end(third)
    all_gone(used)


def test_children_of_a_client_do_not_hold_the_server(used: Path) -> None:
    forked = "import os, time\nif os.fork(): os.kill(os.getpid(), 9)\ntime.sleep(60)"
    spawned = "subprocess.Popen(['sleep', '60']); os.kill(os.getpid(), 9)"
    for then in (forked, "import os\n" + spawned):
        process = client(used, then, start_new_session=True)
        started(process)
        process.wait()
        all_gone(used)
        os.killpg(process.pid, signal.SIGKILL)  # the child lived on, holding nothing
        process.communicate()


def test_an_interrupt_in_one_clients_terminal_leaves_the_server_to_others(used: Path) -> None:
    starter = client(used, start_new_session=True)
    started(starter)
    with EmbeddedServer(used) as server:
        os.killpg(starter.pid, signal.SIGINT)
        starter.communicate()
        assert ask(server, "SELECT 1") == 1


def test_two_clients_may_start_it_at_once_even_while_it_stops(folder: Path) -> None:
    for _ in range(3):
        clients = [client(folder) for _ in range(3)]
        assert len({started(process) for process in clients}) == 1
        for process in clients:
            end(process)  # the next round comes while the keeper is stopping


def test_stop_returns_once_it_is_down_or_leaves_it_to_others(used: Path) -> None:
    one, other = EmbeddedServer(used).start(), EmbeddedServer(used).start()
    one.stop()
    assert ask(other, "SELECT 1") == 1
    other.stop()
    assert not left_running(used)


@pytest.mark.parametrize("victims", ["keeper", "postmaster", "both"])
def test_starts_again_after_a_kill_with_what_was_committed(used: Path, victims: str) -> None:
    with EmbeddedServer(used) as server:
        do(server, "DROP TABLE IF EXISTS kept")
        do(server, "CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) AS n")
        before = server.postmaster_pid
        if victims != "postmaster":
            os.kill(server.keeper_pid, signal.SIGKILL)
        if victims != "keeper":
            os.kill(before, signal.SIGKILL)
        all_gone(used)  # the killed, and the others after them
        server.start()
        assert server.postmaster_pid != before
        assert ask(server, "SELECT count(*) FROM kept") == 1000


def test_a_keeper_that_is_killed_leaves_no_postgres_behind(used: Path) -> None:
    server = EmbeddedServer(used).start()
    os.kill(server.keeper_pid, signal.SIGKILL)
    all_gone(used)
    server.stop()


def test_half_made_or_foreign_data_is_made_again(used: Path) -> None:
    EmbeddedServer(used).start().stop()
    (used / "data" / "PG_VERSION").write_text("12\n")
    (used / "data-making").mkdir()
    (used / "data-making" / "base").write_text("an initdb that was killed")
    with EmbeddedServer(used) as server:
        assert ask(server, "SELECT current_setting('server_version_num')::int >= 180000") is True
    assert not (used / "data-making").exists()


def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(used: Path) -> None:
    server = EmbeddedServer(used).start()
    owner = os.stat(f"/proc/{server.postmaster_pid}").st_uid
    server.stop()
    other = subprocess.Popen(["sleep", "60"], user=owner)
    lines = [other.pid, used / "data", 0, 5432, "", "", "0 0", "ready", ""]
    (used / "data" / "postmaster.pid").write_text("\n".join(map(str, lines)))
    with server:
        assert ask(server, "SELECT 1") == 1
    other.kill()
    other.wait()


@pytest.mark.parametrize("name", ["with a space", "it's, or is it", "long" * 30])
def test_serves_from_a_folder_of_any_name(folder: Path, name: str) -> None:
    with EmbeddedServer(folder / name) as server:
        assert ask(server, "SELECT 1") == 1
        socket = server.socket_dir / ".s.PGSQL.5432"
        assert socket.is_socket()
        assert len(os.fsencode(socket)) < 104
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        elsewhere = server.socket_dir.parent != server.folder
    assert not (elsewhere and server.socket_dir.exists())


def test_opens_no_folder_to_others(folder: Path) -> None:
    package = Path(queue_insights.__file__).parent
    watched = [*folder.parents, package, *package.parents, Path(sys.prefix), Path.home()]
    before = {path: path.stat().st_mode for path in watched}
    with EmbeddedServer(folder) as server:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert modes.pop("data") == modes.pop("socket") == 0o700
        public = {name: mode for name, mode in modes.items() if mode & 0o077}
        assert all(name.startswith("postgres-") for name in public)  # root's copy of the binaries
        assert stat.S_IMODE(folder.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
        assert ask(server, "SELECT 1") == 1
    assert {path: path.stat().st_mode for path in watched} == before


@as_root
def test_root_and_an_ordinary_user_run_theirs_at_the_same_time(used: Path, folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    python = python_for(user)
    with EmbeddedServer(used) as server:
        theirs = client(folder, python=python, **user)
        assert started(theirs) != server.postmaster_pid
        assert ask(server, "SELECT 1") == 1
        end(theirs)
        all_gone(folder)
        assert ask(server, "SELECT 1") == 1
        with pytest.raises(DemoError, match="another user's"):
            EmbeddedServer(folder).start()


def python_for(user: dict[str, Any]) -> str:
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            command = [python, "-c", "import queue_insights.demo"]
            if (
                subprocess.run(command, env=ENVIRONMENT, capture_output=True, **user).returncode
                == 0
            ):
                return python
    pytest.skip("no Python here that another user can run with these packages")


@as_root
def test_root_is_told_where_its_postgres_cannot_go(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with pytest.raises(DemoError, match="cannot enter"):
        EmbeddedServer(folder / "below").start()


def test_folders_that_are_not_its_own_are_refused_and_left_as_they_are(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    (folder / "thesis.tex").touch()
    (folder.parent / "link").symlink_to(folder)
    with pytest.raises(DemoError, match="holds other files"):
        EmbeddedServer(folder).start()
    with pytest.raises(DemoError, match="is a link"):
        EmbeddedServer(folder.parent / "link").start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_says_why_postgres_did_not_start(folder: Path) -> None:
    with pytest.raises(DemoError, match="no_such_setting"):
        EmbeddedServer(folder, settings={"no_such_setting": "1"}).start()
    with EmbeddedServer(folder) as server:
        assert ask(server, "SELECT 1") == 1
