"""No command says a password, whether it works, fails, or is asked for nonsense."""

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from conftest import Bench
from queue_insights.cli import main
from queue_insights.database import READ_URL, WRITE_URL
from reporting import COMMANDS, QUOTED, SECRET

# These start servers or kernels: test_report_safety and test_lab are about them.
ELSEWHERE = {("demo",), ("lab",), ("report",)}
# Every other command there is, with something for each of its arguments.
LINES = [
    (*path, *("1" for parameter in command.params if isinstance(parameter, click.Argument)))
    for path, command in COMMANDS.items()
    if path not in ELSEWHERE
]


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    bench = fresh("a")
    bench.track("a", "audio_ready")
    return bench


@pytest.mark.parametrize("broken", ["", "no_such_database", "no_such_host"])
def test_no_command_says_the_password(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    url = bench.url.replace("postgres@", f"postgres:{QUOTED}@", 1)
    if broken == "no_such_database":
        url = url.replace("/test_", "/no_test_")
    elif broken:
        url = f"postgresql://postgres:{QUOTED}@127.0.0.1:1/db"
    monkeypatch.setenv(READ_URL, url)
    monkeypatch.setenv(WRITE_URL, f"{url}{'&' if '?' in url else '?'}sslpassword={QUOTED}")
    monkeypatch.chdir(tmp_path)
    codes = {}
    for command in LINES:
        result = CliRunner().invoke(main, command)
        codes[command] = result.exit_code
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        for secret in (SECRET, QUOTED):
            assert secret not in result.output, command
            assert secret not in result.stderr, command
    assert codes["backlog",] == (1 if broken else 0)
    assert not list(tmp_path.iterdir())
