"""A real Postgres for the demo and the tests, started on first use and gone after the last.

Each process that uses the server is a client: it holds a shared lock on clients.lock, which the
kernel drops however the process ends. A small process (keeper.py) starts Postgres, and stops it
when nobody holds that lock. The keeper and all of Postgres together hold the lock on server.lock:
who can take it knows that nothing runs.

Everything lives in one folder outside the home: Postgres refuses to run as root, so for root it
runs as `nobody`, who would need every folder on the way opened to him. Instead root gets a copy of
the programs, and only this folder (mode 0711, what is private in it 0700) lets `nobody` through.

There is no TCP port and no password: whoever can enter the socket's folder is superuser, which is
its owner and root. As root that includes other processes of `nobody`; keep secrets elsewhere.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg

from queue_insights.demo import binaries, keeper
from queue_insights.errors import DemoError

LONGEST = 103 - len("/.s.PGSQL.5432")  # bytes in the path of a socket's folder, on any system
PATIENCE = 120  # seconds until Postgres answers; initdb may run before
SETTINGS = {
    **{"listen_addresses": "", "timezone": "UTC", "jit": "off"},
    **{"shared_buffers": "256MB", "max_wal_size": "4GB"},
    # The demo's data can be made again, so none of it is worth waiting for the disk. What was
    # committed still survives a SIGKILL of every process, as it has been handed to the kernel.
    **{"fsync": "off", "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0"},
    # In the data folder: containers' /dev/shm is small, and nothing is left there by a SIGKILL.
    "dynamic_shared_memory_type": "mmap",
}


class EmbeddedServer:
    """Postgres in a folder, shared by all processes of one user that name the same folder.

    It runs from ``start()`` until every process that started it has called ``stop()`` or ended.
    ``folder``: default QUEUE_INSIGHTS_DEMO_DIR, or /var/tmp/queue-insights-UID; made if absent,
    refused if it is not ours alone. ``settings``: of postgresql.conf, on top of SETTINGS. Raises
    DemoError where the folder will not do, or Postgres is missing or does not start.
    """

    def __init__(
        self, folder: Path | str | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        folder = folder or os.environ.get("QUEUE_INSIGHTS_DEMO_DIR")
        self.folder = Path(os.path.abspath(folder or f"/var/tmp/queue-insights-{os.geteuid()}"))
        self.settings = SETTINGS | dict(settings or {})
        self.log = self.folder / "postgres.log"
        self.data = self.folder / keeper.DATA
        self.socket_dir = self.data.with_name("socket")
        # A socket's path may not be long, and libpq takes a comma for the start of the next host.
        if len(os.fsencode(self.socket_dir)) > LONGEST or "," in str(self.socket_dir):
            digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
            self.socket_dir = Path(f"/tmp/queue-insights-{os.geteuid()}-{digest}")
        self._hold: IO[str] | None = None
        os.register_at_fork(after_in_child=self._release)

    def url(self, database: str) -> str:
        """libpq URL of a database on this server, as its superuser."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}&port=5432"

    @property
    def postmaster_pid(self) -> int:
        """Process id of Postgres' first process, for tests that kill it."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def start(self) -> "EmbeddedServer":
        """Hold the server, start it if it is not running, return once it answers queries."""
        try:
            self._own_folder()
            self._hold = self._hold or self._open("clients.lock")
            fcntl.flock(self._hold, fcntl.LOCK_SH)  # waits for a keeper that is stopping
            self._await_answer()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError | subprocess.SubprocessError):
                raise DemoError(f"no demo server in {self.folder}: {error}") from error
            raise
        return self

    def stop(self) -> None:
        """Let go of the server; if nobody else holds it, return once it is down."""
        if self._hold is None:
            return
        self._release()
        while not self._free("server.lock", fcntl.LOCK_EX):
            # Before the keeper notices, both could be had; while it stops, neither.
            alone = self._free("clients.lock", fcntl.LOCK_EX)
            if not alone and self._free("clients.lock", fcntl.LOCK_SH):
                return
            time.sleep(0.01)

    __enter__ = start

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _release(self) -> None:
        """Closing is enough, and all a forked child may do: unlocking would end the parent's."""
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    def _await_answer(self) -> None:
        launched, deadline = False, time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                return psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            with self._open("server.lock") as lock:
                if _taken(lock, fcntl.LOCK_EX):  # nothing runs, and nobody else can start it now
                    if launched:
                        raise DemoError(f"Postgres did not start: {self._last_words()}")
                    self._launch(lock.fileno())
                    launched = True
            time.sleep(0.01)
        raise DemoError(f"the demo server does not answer: {self._last_words()}")

    def _last_words(self) -> str:
        said = re.search(".*(FATAL|error|Error).*", self.log.read_text(errors="replace"))
        return f"{said[0] if said else 'it does not say why'} (see {self.log})"

    def _own_folder(self) -> None:
        """Make the folder, or refuse one that will not do before anything in it is changed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info, user = self.folder.lstat(), os.geteuid()
        fault = None
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != user:
            fault = "is a link or another user's"
        elif any(self.folder.iterdir()) and not (self.folder / "clients.lock").exists():
            fault = "holds other files"
        elif user == 0 and not all(p.stat().st_mode & stat.S_IXOTH for p in self.folder.parents):
            fault = "is where 'nobody', as whom root's Postgres runs, cannot enter"
        if fault:
            raise DemoError(f"{self.folder} {fault}; set QUEUE_INSIGHTS_DEMO_DIR to a new folder")
        self.folder.chmod(0o711 if user == 0 else 0o700)

    def _launch(self, lock: int) -> None:
        """Start the keeper, which takes over the lock, and starts Postgres."""
        root = os.geteuid() == 0
        programs = binaries.copied_to(self.folder) if root else binaries.installed()
        for path in self.folder.rglob("*"):  # else /var/tmp's cleaner takes what is not in use
            os.utime(path, follow_symlinks=False)
        settings = self.settings | {"unix_socket_directories": str(self.socket_dir)}
        switches = [f"--{name}={value}" for name, value in settings.items()]
        folders = [str(folder) for folder in (self.folder, self.socket_dir, programs)]
        arguments = json.dumps([*folders, switches, lock])
        with self._open(self.log.name, "w") as log:
            subprocess.run(
                [sys.executable, "-I", "-S", keeper.__file__, arguments],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                cwd="/",
                # Nothing of the user's: it may hold secrets, and PG* variables would interfere.
                env={"PATH": os.defpath, "LC_ALL": "C"},
                start_new_session=True,  # Ctrl-C in this terminal is not for other clients' server
            )

    def _open(self, name: str, mode: str = "a") -> IO[str]:
        return open(self.folder / name, mode, opener=lambda path, how: os.open(path, how, 0o600))

    def _free(self, name: str, how: int) -> bool:
        with self._open(name) as file:
            return _taken(file, how)


def _taken(file: IO[str], how: int) -> bool:
    """Take a lock on the file, unless others' locks are in the way; whether it was taken."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
