"""The process that stays with one embedded Postgres, from its start to its end.

server.py runs this file as a script, ``python -I -S keeper.py ARGUMENTS``, so it imports nothing
but the standard library. The arguments are those of ``main``, as JSON.
"""

import ctypes
import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time

DATA = "postgres/data-18"  # in the server's folder
INITDB = "--username=postgres --auth=trust --encoding=UTF8 --locale=C --no-sync"
INITDB += " --locale-provider=builtin --builtin-locale=C.UTF-8"
PR_SET_PDEATHSIG = 1


def main(folder: str, sockets: str, programs: str, switches: list[str], lock: int) -> None:
    """Run Postgres until it ends, by itself or because its last client has gone.

    ``lock`` is an inherited descriptor of a locked file. Postgres inherits it from here, so that
    the lock is free when this process and all of Postgres have gone, however they went.
    """
    if os.fork():
        os._exit(0)  # the client collects this process at once; the other one belongs to init
    keeper, data = os.getpid(), os.path.join(folder, DATA)
    os.ftruncate(lock, 0)
    os.write(lock, str(keeper).encode())
    clients = os.open(f"{folder}/clients.lock", os.O_RDWR)
    os.makedirs(os.path.dirname(data), 0o700, exist_ok=True)
    if os.geteuid() == 0:
        _become_nobody(os.path.dirname(data))
    if not os.path.exists(data):
        making = f"{data}-making"
        shutil.rmtree(making, ignore_errors=True)
        initdb = [f"{programs}/initdb", "-D", making, *INITDB.split()]
        subprocess.run(initdb, check=True, pass_fds=[lock])
        os.rename(making, data)  # whole
    elif os.path.exists(f"{data}/postmaster.pid"):
        os.remove(f"{data}/postmaster.pid")  # left by a kill; the number may be anybody's by now
    shutil.rmtree(sockets, ignore_errors=True)
    os.mkdir(sockets, 0o700)
    command = [f"{programs}/postgres", "-D", data, *switches]
    postgres = subprocess.Popen(command, pass_fds=[lock], preexec_fn=lambda: _end_with(keeper))
    threading.Thread(target=_stop_unused, args=(postgres, clients), daemon=True).start()
    postgres.wait()
    shutil.rmtree(sockets, ignore_errors=True)


def _become_nobody(home: str) -> None:
    """Postgres refuses to run as root. What it writes is in a folder that it gets for its own."""
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def _end_with(keeper: int) -> None:
    """Have the kernel stop this process, which will be Postgres, when the keeper is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != keeper:
            os._exit(1)


def _stop_unused(postgres: "subprocess.Popen[bytes]", clients: int) -> None:
    """Stop Postgres once no client has the file locked: the kernel unlocks it for the killed."""
    fcntl.flock(clients, fcntl.LOCK_EX)  # until this process ends: who comes now waits for that
    postgres.send_signal(signal.SIGINT)
    time.sleep(60)
    postgres.kill()


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
