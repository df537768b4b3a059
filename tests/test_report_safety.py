"""Reports under bad luck: killed, out of disk, with secrets about: nothing is half kept."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from conftest import Url
from processes import ended
from reporting import SECRET, incident, process, queue_insights, refused, write

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
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        report = subprocess.Popen([*command, "--output", tmp_path / "reports"], **pipes)
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


WAYS = ("URL", "write URL", "PGPASSWORD", "PGPASSFILE")
LEAK = """
import os, pandas as pd, queue_insights
from queue_insights import show
queue_insights.connect().backlog()
known = [os.environ.get(name) for name in ('QUEUE_INSIGHTS_URL', 'PGPASSWORD')]
show.save('known', [pd.DataFrame({'known': known})], limit=0)
print(known)
"""


def test_a_password_is_in_no_artifact_log_or_error(
    server: Url, templates: dict[str, str], tmp_path: Path
) -> None:
    """Another one in each of the ways there are."""
    secrets = {way: f"{way[-4:]}{SECRET}" for way in WAYS}
    quoted = {way: quote(secret, safe="") for way, secret in secrets.items()}
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{secrets['PGPASSFILE']}\n")
    file.chmod(0o600)
    path, output = write(tmp_path, LEAK, "raise ValueError(dict(os.environ))"), tmp_path / "reports"
    with incident(server, templates) as url:
        variables = {
            "QUEUE_INSIGHTS_URL": url.replace("postgres@", f"postgres:{quoted['URL']}@", 1),
            "QUEUE_INSIGHTS_WRITE_URL": f"{url}&password={quoted['write URL']}",
            **{"PGPASSWORD": secrets["PGPASSWORD"], "PGPASSFILE": str(file)},
        }
        done = process("report", path, "--output", output, **variables)
    assert done.returncode == 1, done.stderr
    files = [file for file in output.rglob("*") if file.is_file()]
    assert len(files) == 3
    everything = done.stdout + done.stderr + "".join(file.read_text("utf-8") for file in files)
    assert "ValueError" in everything
    assert not [each for each in (*secrets.values(), *quoted.values()) if each in everything]
