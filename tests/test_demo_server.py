"""The embedded server: who may use it, how long it lives, and what it leaves alone."""

import contextlib
import os
import pwd
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
from processes import ended, until
from queue_insights.demo import EmbeddedServer
from queue_insights.errors import DemoError

CLIENT = """
import os, subprocess, sys
from queue_insights import demo
print(demo.EmbeddedServer().start().postmaster_pid, flush=True)
"""
FIRST_USE = "print(demo.seeded(demo.default_url()), flush=True)\n"
WAIT = "sys.stdin.read()"
CHILDREN = """
if os.fork(): subprocess.Popen(['sleep', '60']); os.kill(os.getpid(), 9)
"""
PACKAGES = [Path(module.__file__).parents[1] for module in (queue_insights, psycopg)]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(map(str, PACKAGES)), "PATH": os.defpath}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def made() -> Iterator[Path]:
    """Where a server may go. Not tmp_path: it is below a 0700 folder, closed to root's Postgres."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qi-test-") as base:
        os.chmod(base, 0o755)
        yield Path(base, "server")
        all_gone(Path(base))


folder = pytest.fixture(name="folder")(made)
# One that tests use one after the other, which spares them the initdb.
shared = pytest.fixture(scope="module", name="shared")(made)


@pytest.fixture
def used(shared: Path) -> Iterator[Path]:
    yield shared
    all_gone(shared)


def running(folder: Path) -> list[int]:
    """The keepers of a server and all of its Postgres, which works in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            command = (process / "cmdline").read_text()
            named = str(folder) in command and ("keeper.py" in command or "\0-D\0" in command)
            if named or (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


def all_gone(folder: Path) -> None:
    """Return once nothing is left running."""
    while found := running(folder):  # again only if some were replaced by others
        for pid in found:
            assert ended(pid, within=30), f"waited 30 s for {pid}"


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert all(ended(pid, within=30) for pid in pids)


def client(
    folder: Path, program: str = CLIENT + WAIT, python: str = sys.executable, **how: Any
) -> "subprocess.Popen[str]":
    """A process that starts the server, prints Postgres' pid, then waits or does something else."""
    how |= {"env": {**ENVIRONMENT, "QUEUE_INSIGHTS_DEMO_DIR": str(folder)}, "text": True}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([python, "-c", program], **pipes, **how)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def ask(server: EmbeddedServer, query: str) -> object:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def test_keeps_its_data_listens_on_no_port_and_is_down_once_its_last_client_stops(
    used: Path,
) -> None:
    with EmbeddedServer(used) as server:
        EmbeddedServer(used).start().stop()
        ask(server, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 7 AS n")
        assert ask(server, "SHOW listen_addresses") == ""
        assert ask(server, "SHOW timezone") == "UTC"
        owner = os.stat(f"/proc/{server.postmaster_pid}").st_uid
    assert not running(used)
    other = subprocess.Popen(["sleep", "60"], user=owner)
    (server.data / "postmaster.pid").write_text(f"{other.pid}\n")  # stale: it is no obstacle
    with EmbeddedServer(used, settings={"work_mem": "7MB"}) as server:
        assert ask(server, "SELECT n FROM kept") == 7
        assert ask(server, "SHOW work_mem") == "7MB"
    other.kill()
    other.wait()


@pytest.mark.proof
def test_is_down_when_its_last_client_was_killed_and_not_before(used: Path) -> None:
    starter = client(used, start_new_session=True)
    assert (postmaster := said(starter))
    second = client(used)
    assert said(second) == postmaster
    os.killpg(starter.pid, signal.SIGINT)  # Ctrl-C in its terminal
    starter.communicate()
    third = client(used, CLIENT + CHILDREN + WAIT, start_new_session=True)
    assert said(third) == postmaster
    third.wait()
    assert ask(EmbeddedServer(used), "SELECT 1") == 1
    end(second)
    all_gone(used)
    os.killpg(third.pid, signal.SIGKILL)  # whose children, forked or started, held nothing
    third.communicate()


@pytest.mark.proof
def test_clients_may_start_it_at_once_even_while_it_stops_and_share_one_seed(folder: Path) -> None:
    for _ in range(3):
        clients = [client(folder, CLIENT + FIRST_USE + WAIT) for _ in range(3)]
        assert len({said(process) for process in clients}) == 1
        (seed,) = {said(process) for process in clients}
        assert seed.startswith("Seeded(")
        for process in clients:
            end(process)  # the next round comes while the keeper is stopping


@pytest.mark.proof
@pytest.mark.parametrize("victims", ["keeper", "postmaster", "keeper postmaster"])
def test_starts_again_after_a_kill_with_what_was_committed(used: Path, victims: str) -> None:
    with EmbeddedServer(used) as server:
        ask(server, "DROP TABLE IF EXISTS kept")
        ask(server, "CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) AS n")
        before = running(used)
        pids = {"postmaster": server.postmaster_pid}
        pids["keeper"] = int((used / "server.lock").read_text())
        kill([pids[victim] for victim in victims.split()])
        server.start()
        assert set(before).isdisjoint(running(used))
        assert ask(server, "SELECT count(*) FROM kept") == 1000


@pytest.mark.proof
def test_an_initdb_that_was_killed_is_done_again(folder: Path) -> None:
    server, first = EmbeddedServer(folder), client(folder)
    until((server.data.with_name(f"{server.data.name}-making") / "base").exists, "initdb to begin")
    kill(running(folder))
    end(first)
    all_gone(folder)
    assert not server.data.exists()
    with server:
        assert ask(server, "SELECT 1") == 1


@pytest.mark.proof
@pytest.mark.parametrize("name", ["with a space", "it's, or is it", "long" * 30])
def test_serves_from_a_folder_of_any_name(folder: Path, name: str) -> None:
    with EmbeddedServer(folder / name) as server:
        assert ask(server, "SELECT 1") == 1
        socket = server.socket_dir / ".s.PGSQL.5432"
        assert socket.is_socket()
        assert len(os.fsencode(socket)) < 104
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    assert not server.socket_dir.exists()


def test_opens_no_folder_to_others_and_takes_nothing_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(queue_insights.__file__).parent
    watched = [*folder.parents, package, *package.parents, Path(sys.prefix), Path.home()]
    before = {path: path.stat().st_mode for path in watched}
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    with EmbeddedServer(folder) as server:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert modes.pop("postgres") == 0o700
        modes.pop("pginstall18", None)  # root's copy of the programs
        assert not any(mode & 0o077 for mode in modes.values()), modes
        root = os.geteuid() == 0
        assert stat.S_IMODE(folder.stat().st_mode) == (0o711 if root else 0o700)
        program = Path(f"/proc/{server.postmaster_pid}/exe").readlink()
        assert program.is_relative_to(folder if root else sys.prefix)
        ask(server, "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; env > given'")
        given = (server.data / "given").read_text()
    assert "PATH=" in given
    assert "s3cret" not in given
    assert "/nowhere" not in given
    assert {path: path.stat().st_mode for path in watched} == before


@pytest.mark.proof
@as_root
def test_root_and_an_ordinary_user_run_theirs_at_the_same_time(used: Path, folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    with EmbeddedServer(used) as server:
        theirs = client(folder, python=python_for(user), **user)
        assert int(said(theirs)) != server.postmaster_pid
        assert ask(server, "SELECT 1") == 1
        end(theirs)
        all_gone(folder)
        assert ask(server, "SELECT 1") == 1
        with pytest.raises(DemoError, match="another user's"):
            EmbeddedServer(folder).start()


def python_for(user: dict[str, Any]) -> str:
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        command = [python, "-c", "import queue_insights.demo"]
        with contextlib.suppress(OSError):
            done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, **user)
            if done.returncode == 0:
                return python
    pytest.skip("no Python here that another user can run with these packages")


def test_what_will_not_do_is_refused_says_why_and_is_left_as_it_is(folder: Path) -> None:
    with pytest.raises(DemoError, match="no_such_setting"):
        EmbeddedServer(folder / "new", settings={"no_such_setting": "1"}).start()
    folder.chmod(0o700)
    (folder / "thesis.tex").touch()
    (folder.parent / "link").symlink_to(folder)
    faults = {"": "holds other files", "../link": "is a link", "thesis.tex/a": "Not a directory"}
    if os.geteuid() == 0:
        faults["below"] = "'nobody', .* cannot enter"
    for name, fault in faults.items():
        with pytest.raises(DemoError, match=fault):
            EmbeddedServer(folder / name).start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "thesis.tex").exists()
