"""Reports under bad luck: killed, out of disk, with secrets about: nothing is half kept."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Url
from processes import ended
from reporting import QUOTED, SECRET, incident, process, queue_insights, refused, write

OUTLIVES = 5.0  # seconds that a kernel may
SLEEPING = "import time; time.sleep(600)"
# One call that never lets go of the interpreter: the kernel itself can notice nothing.
DEAF = "import re; re.match('(a+)+$', 'a' * 60 + 'b')"
Running = Callable[[str], tuple[subprocess.Popen[str], int]]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Start a report whose last cell is the given one; returns it and its kernel's pid."""
    started: list[subprocess.Popen[str]] = []
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)  # which waits for no writer

    def start(cell: str) -> tuple[subprocess.Popen[str], int]:
        pid = f"import os; open({str(pipe)!r}, 'w').write(str(os.getpid()))"
        command = [sys.executable, "-m", "queue_insights", "report", write(tmp_path, pid, cell)]
        # Whoever starts the tests in the background leaves them, and their children, deaf to it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        report = subprocess.Popen(
            [*command, "--output", tmp_path / "reports"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        signal.signal(signal.SIGINT, before)
        started.append(report)
        assert select.select([reader], [], [], 300)[0], "the report's kernel has not come up"
        return report, int(os.read(reader, 99))

    yield start
    os.close(reader)
    for report in started:
        report.kill()
        report.communicate()


@pytest.mark.proof
@pytest.mark.skipif(sys.platform != "linux", reason="waits for a process of others'")
@pytest.mark.parametrize(
    ("how", "cell"),
    [(signal.SIGTERM, SLEEPING), (signal.SIGINT, SLEEPING), (signal.SIGKILL, DEAF)],
    ids=["SIGTERM", "SIGINT", "SIGKILL to a deaf kernel"],
)
def test_no_kernel_outlives_a_report_that_is_killed_and_the_next_run_tidies_up(
    running: Running, tmp_path: Path, how: signal.Signals, cell: str
) -> None:
    report, kernel = running(cell)
    assert not ended(kernel, within=0)
    report.send_signal(how)
    assert ended(kernel, within=OUTLIVES)
    stdout, stderr = report.communicate(timeout=120)
    assert stdout == ""
    output = tmp_path / "reports"
    left = [path.name[:12] for path in output.iterdir()]
    if how != signal.SIGKILL:
        assert (report.returncode, left) == (1, [])
        (line,) = stderr.splitlines()
        assert "stopped by SIGTERM" in line or "interrupted" in line
        return
    assert (report.returncode, left) == (-how, [".unfinished-"])
    done = queue_insights("report", write(tmp_path, "1 + 1"), "--output", output)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1]).parent
    assert {path.name for path in output.iterdir()} == {folder.name, "index.html"}


@pytest.mark.proof
def test_what_cannot_be_written_is_one_line_and_leaves_nothing_half(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2)"
    start = "import runpy, sys; sys.argv[0] = 'queue-insights';"
    start = f"{limit};{start} runpy.run_module('queue_insights', run_name='__main__')"
    path, output = write(tmp_path, "1 + 1"), tmp_path / "r"
    command = [sys.executable, "-c", start, "report", path, "--output", output]
    refused(subprocess.run(command, capture_output=True, text=True), 1, "File too large")
    assert not list(output.iterdir())


@pytest.fixture(scope="module")
def database(server: Url, templates: dict[str, str]) -> Iterator[str]:
    with incident(server, templates) as url:
        yield url


def with_secret(url: str, how: str, folder: Path) -> dict[str, str]:
    """The environment that names the database and gives the secret in one of the ways there are."""
    secret = url.replace("postgres@", f"postgres:{QUOTED}@", 1)
    file = folder / "pgpass"
    file.write_text(f"*:*:*:*:{SECRET}\n")
    file.chmod(0o600)
    return {
        "url": {"QUEUE_INSIGHTS_URL": secret},
        "write url": {"QUEUE_INSIGHTS_URL": url, "QUEUE_INSIGHTS_WRITE_URL": secret},
        "query": {"QUEUE_INSIGHTS_URL": f"{url}&password={QUOTED}"},
        "PGPASSWORD": {"QUEUE_INSIGHTS_URL": url, "PGPASSWORD": SECRET},
        "PGPASSFILE": {"QUEUE_INSIGHTS_URL": url, "PGPASSFILE": str(file)},
    }[how]


LEAK = """
import os, pandas as pd
from queue_insights import show
known = [os.environ.get('QUEUE_INSIGHTS_URL'), os.environ.get('PGPASSWORD')]
show.save('known', [pd.DataFrame({'known': known})], limit=0)
print(known)
"""
FAIL = "raise ValueError(dict(os.environ))"
WAYS = {
    "url": FAIL,
    "write url": FAIL,
    "query": FAIL,
    "PGPASSWORD": FAIL,
    "PGPASSFILE": "queue.nil",
}


@pytest.mark.parametrize(
    "how", ["url", *(pytest.param(how, marks=pytest.mark.proof) for how in [*WAYS][1:])]
)
def test_a_password_is_in_no_artifact_log_or_error(database: str, tmp_path: Path, how: str) -> None:
    read = "import queue_insights; queue = queue_insights.connect(); queue.backlog(); queue"
    path, output = write(tmp_path, read, LEAK, WAYS[how]), tmp_path / "reports"
    done = process("report", path, "--output", output, **with_secret(database, how, tmp_path))
    assert done.returncode == 1, done.stderr
    files = [file for file in output.rglob("*") if file.is_file()]
    assert len(files) >= 3
    everything = done.stdout + done.stderr + "".join(file.read_text("utf-8") for file in files)
    for secret in (SECRET, QUOTED):
        assert secret not in everything
