"""What the tests of reports share: a small incident with tricky titles, the CLI, a browser."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import nbformat
import psycopg
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from conftest import Url, database
from operating import command
from queue_insights.cli import main

ROOT = Path(__file__).parents[1]
TITLES = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\"> & <b>bold</b> &amp;",
    "\"double\" 'single' `back`",
    "שיר הערב \u202egnorts\u202c مرحبا",
    "🎤 Karaoke 🎶",
    '=HYPERLINK("http://example.invalid";"x")',
    "+1 <!-- </script><script>document.title='owned'</script>",
    "line\nbreak",
    "{{ 7 * 7 }} {% raw %} $x^2$ @@plotly@@",
]
SECRET, QUOTED = "s3cr+t/of@the%queue", "s3cr%2Bt%2Fof%40the%25queue"  # as it is, and in a URL
# Per step: tracks without a row. The align step is the incident: 50, and no row at all.
MISSING = {"audio_ready": 50, "aligned": 3, "enhanced": 1}


@contextlib.contextmanager
def incident(server: Url, templates: dict[str, str], variant: str = "a") -> Iterator[str]:
    """The URL of a database with the incident in it; dropped afterwards."""
    with database(server, templates[variant]) as url:
        with psycopg.connect(url) as connection:
            _fill(connection, variant)
        yield url


def _fill(connection: psycopg.Connection, variant: str) -> None:
    titles = dict(enumerate(TITLES, 20))
    for stage, count in MISSING.items():
        for i in range(count):
            connection.execute(
                "INSERT INTO tracks (spotify_track_id, title, artists, stage, updated_at) "
                "VALUES (%s, %s, '[]', %s, now() - make_interval(mins => %s))",
                (f"{stage}{i:02}", titles.get(i, f"Song {i}"), stage, i + 10),
            )
    subject = "spotify_track_id" if variant == "a" else "spotify_track_id, subject_id"
    stuck = "'stuck'" if variant == "a" else "'stuck', 'stuck'"
    connection.execute(f"""
        INSERT INTO tracks (spotify_track_id, title, artists, stage)
        VALUES ('stuck', 'Stuck', '[]', 'separated');
        INSERT INTO audio_tasks ({subject}, task_type, status, attempts, last_attempt_at)
        VALUES ({stuck}, 'segment', 'running', 1, now() - interval '5 h'),
               ({stuck}, 'download', 'pending', 0, null)
    """)


def write(folder: Path, *sources: str, parameters: str | None = None, title: str = "Mine") -> Path:
    """A notebook ``mine.ipynb`` of a heading and code cells, the parameters first if any."""
    cells = [new_markdown_cell(f"# {title}"), *map(new_code_cell, sources)]
    if parameters is not None:
        cells.insert(1, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    path = folder / "mine.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)
        else:
            yield (*path, name), found


COMMANDS = dict(commands(main))


def queue_insights(
    *arguments: str | Path, url: str | None = None, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the CLI in this process; what became of it is told as ``process`` tells it."""
    words = [*map(str, arguments)]
    with contextlib.chdir(cwd or "."):
        done = command(url, *words, **environment)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


def process(
    *arguments: str | Path, url: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The same as a process of its own, as cron would: no terminal, and what its kernel says."""
    if url is not None:
        environment["QUEUE_INSIGHTS_URL"] = url
    return subprocess.run(
        [sys.executable, "-m", "queue_insights", *map(str, arguments)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> str:
    """The one line of a command that failed with *code*, which has all the *words* in it."""
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert not [word for word in words if word not in line], line
    return line


CHROMIUM = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
)


@contextlib.contextmanager
def chromium(*switches: str) -> Iterator[Chrome]:
    """A headless browser; where there is none the test is skipped, but in CI it fails."""
    absent = [name for name, path in CHROMIUM.items() if path is None]
    if absent and os.environ.get("CI") != "true":
        pytest.skip(f"no {' and no '.join(absent)} (apt-get install chromium chromium-driver)")
    assert not absent, f"CI needs {absent}: apt-get install chromium chromium-driver"
    options = ChromeOptions()
    options.binary_location = CHROMIUM["chromium"]
    for switch in (*SWITCHES, *switches):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(CHROMIUM["chromedriver"]))
    try:
        yield browser
    finally:
        browser.quit()


def contrast(*colours: str) -> float:
    """Of two colours ``#rrggbb``, as the Web Content Accessibility Guidelines define it."""
    luminances = []
    for colour in colours:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


# Of the first such element, and of the ground that it is on.
COLOURS = """return [[arguments[0], arguments[1]], [arguments[2], 'backgroundColor']].map(
    ([selector, name]) => '#' + getComputedStyle(document.querySelector(selector))[name]
        .match(/[\\d.]+/g).slice(0, 3)
        .map(part => Math.round(part).toString(16).padStart(2, '0')).join(''))"""


def readable(browser: Chrome, selector: str, colour: str, ground: str) -> bool:
    """Whether what has this colour, a property of its style, stands out from the ground."""
    return contrast(*browser.execute_script(COLOURS, selector, colour, ground)) >= 4.5


def requests(browser: Chrome) -> list[str]:
    """Every URL that pages asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
    return [event["params"]["request"]["url"] for event in sent]


def complaints(browser: Chrome) -> list[str]:
    """What the console says since the last call, but for what it says to nobody."""
    return [e["message"] for e in browser.get_log("browser") if e["level"] not in ("DEBUG", "INFO")]
