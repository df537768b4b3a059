"""The process that stays with one embedded Postgres: starts it, waits, stops it.

Run by `server.py` as a plain script (``python -I -S keeper.py CONFIG``), so it imports the standard
library only. CONFIG is JSON: ``command`` (postgres and its arguments), ``identity`` (user and group
for Popen), ``clients`` (lock file that every client holds shared), ``outside`` (socket folder to
remove at the end if it is not in ours, else null), and two inherited descriptors with locks on
them: ``keeper``, held until this process ends, and ``running``, handed on to Postgres and its
children, so that it is free exactly when the last of them has gone, however they went.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1
FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT  # Postgres' names for the ways to shut down


class _Wake(Exception):
    """Postgres died by itself, or somebody asked this process to end."""


def _wake(signum: int, frame: FrameType | None) -> None:
    raise _Wake


def main(config: dict[str, Any]) -> None:
    """Keep Postgres running until the last client has let go of the lock file."""
    if os.fork():
        os._exit(0)  # the client reaps this one at once; the keeper itself belongs to init
    postgres = _start(config["command"], config["identity"], config["running"])
    os.close(config["running"])
    os.ftruncate(config["keeper"], 0)
    os.pwrite(config["keeper"], f"{os.getpid()} {postgres.pid}".encode(), 0)
    try:
        signal.signal(signal.SIGCHLD, _wake)
        signal.signal(signal.SIGTERM, _wake)
        if postgres.poll() is None:
            # The kernel drops a client's lock whatever way it ends. Held until this process has
            # gone, so that a client arriving now waits and then starts afresh.
            fcntl.flock(os.open(config["clients"], os.O_RDWR), fcntl.LOCK_EX)
    except _Wake:
        pass
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _stop(postgres)
    if config["outside"]:
        with contextlib.suppress(OSError):
            os.rmdir(config["outside"])


def _start(command: list[str], identity: dict[str, Any], running: int) -> "subprocess.Popen[bytes]":
    keeper = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def die_with_keeper() -> None:  # after the change of user, which would clear the setting
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, int(FAST))
            if os.getppid() != keeper:
                os._exit(1)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        cwd="/",
        pass_fds=[running],
        preexec_fn=die_with_keeper,
        **identity,
    )


def _stop(postgres: "subprocess.Popen[bytes]") -> None:
    for signum, seconds in ((FAST, 60), (IMMEDIATE, 10), (signal.SIGKILL, None)):
        postgres.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            postgres.wait(seconds)
            return


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
