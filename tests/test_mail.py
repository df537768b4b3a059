"""A report by mail: what ``mail.html`` and ``mail.txt`` say, their size, how they are sent."""

import email
import email.policy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from queue_insights.report import mail
from reporting import (
    MISSING,
    QUOTED,
    ROOT,
    SECRET,
    chromium,
    complaints,
    incident,
    queue_insights,
    requests,
)
from reporting import write as notebook

DOCS = (ROOT / "docs" / "mail.md").read_text("utf-8")
LARGEST, WIDEST = 100_000, 78  # bytes of the HTML, columns of the text
MARKUP = "<img src=x onerror=alert(1)> & <b>\"bold\"</b> 'x' {{ 7 * 7 }}"
LONG = "'\"&<>" * 200  # five characters for each in HTML
TAGS = {"html", "head", "meta", "title", "body", "h1", "table", "tr", "td"} | {
    "div",
    "span",
    "b",
    "br",
}
ABOUT: dict[str, Any] = {
    **{"report": "mine", "title": "Mine", "started_at": "2026-11-24T06:00:00Z", "as_of": None},
    **{"database": None, "pipeline": None, "times": None, "verdict": None, "figures": {}},
    **{"breached": [], "warnings": []},
}


def written(
    folder: Path, tables: list[dict[str, Any]] | None = None, **summary: Any
) -> tuple[str, str]:
    """The mail about such a summary, as HTML and as text."""
    mail.write(folder, ABOUT | summary, tables or [])
    return checked(folder)


def checked(folder: Path) -> tuple[str, str]:
    """The two files of a folder, which are as any mail has to be."""
    html, text = ((folder / f"mail.{kind}").read_text("utf-8") for kind in ("html", "txt"))
    assert len(html.encode()) <= LARGEST
    assert [line for line in text.splitlines() if len(line) > WIDEST] == []
    elements = BeautifulSoup(html, "html.parser").find_all(True)
    assert {element.name for element in elements} <= TAGS
    attributes = {(name, str(value)) for each in elements for name, value in each.attrs.items()}
    asking = {"src", "href", "background", "srcset", "class", "id"}
    assert not [name for name, _ in attributes if name in asking or name.startswith("on")]
    assert not [value for _, value in attributes if re.search("url\\(|:/|flex|grid", value)]
    return html, text


def table(name: str, **columns: list[Any]) -> dict[str, Any]:
    return {
        "name": name,
        "columns": [*columns],
        "rows": [*map(list, zip(*columns.values(), strict=True))],
    }


def cells(html: str) -> list[str]:
    """The text of each row of the mail, without that of the rows in it."""
    rows = BeautifulSoup(html, "html.parser").find_all("tr")
    return [" ".join(row.get_text(" ").split()) for row in rows if not row.find("tr")]


@pytest.fixture(scope="module")
def incidental(
    server: Callable[[str], str],
    templates: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The run folder of backlog_report on the incident, read with a password in the URL."""
    output = tmp_path_factory.mktemp("reports")
    limits = ("-p", "thresholds", "[hidden > 0]", "--output", output)
    with incident(server, templates) as url:
        secret = url.replace("postgres@", f"postgres:{QUOTED}@", 1)
        done = queue_insights("report", "backlog_report", *limits, url=secret, PGPASSWORD=SECRET)
    assert done.returncode == 3, done.stderr
    return Path(done.stdout.splitlines()[-1]).parent


def test_the_mail_says_what_matters_of_the_incident_and_no_password(incidental: Path) -> None:
    summary = json.loads((incidental / "summary.json").read_text("utf-8"))
    html, text = checked(incidental)
    shown = BeautifulSoup(html, "html.parser").text
    hidden = sum(MISSING.values())
    for words in (summary["title"], summary["database"], f"hidden > 0: {hidden}"):
        assert words in shown
        assert words in text
    for verdict in (shown, " ".join(text.split())):
        assert summary["verdict"] in verdict
    for step, count in {"align": MISSING["audio_ready"], "translate": MISSING["aligned"]}.items():
        (row,) = re.findall(rf"^ +{step} +(\d+) +(\d+)  (#+)$", text, re.MULTILINE)
        assert row[:2] == (str(count), str(count))
    bars = BeautifulSoup(html, "html.parser").select("td[bgcolor]")
    assert [bar["width"] for bar in bars] == ["100%", "6%", "2%"]  # 50, 3, 1
    for secret in (SECRET, QUOTED):
        assert secret not in html + text


def test_text_from_anywhere_is_text(tmp_path: Path) -> None:
    frames = (
        f"by_stage = pd.DataFrame({{'task_type': [{MARKUP!r}], 'waiting': [3], 'missing': [1]}})",
        f"eta = pd.DataFrame({{'task_type': [{MARKUP!r}], 'waiting': [3], 'status': ['draining'],"
        " 'clear_p50_seconds': [7200.0], 'clear_p80_seconds': [10800.0]})",
        f"failures = pd.DataFrame({{'task_type': ['align'], 'failure': ['0a1b2c3d'],"
        f" 'error': [{MARKUP!r} + chr(10) + chr(0x202e)], 'rows': [2], 'new': [True]}})",
    )
    shown = "for name in ('by_stage', 'eta', 'failures'): show.table(name, globals()[name])"
    cell = "\n".join(["import pandas as pd; from queue_insights import show", *frames, shown])
    path = notebook(tmp_path, cell, title=f"Title {MARKUP}")
    done = queue_insights("report", path, "--output", tmp_path / "reports")
    assert done.returncode == 0, done.stderr
    html, text = checked(Path(done.stdout.splitlines()[-1]).parent)
    assert f"new align (0a1b2c3d): {MARKUP}\\n\\u202e" in " ".join(cells(html))
    assert f"Title {MARKUP}" in BeautifulSoup(html, "html.parser").text
    flat = " ".join(text.split())
    assert f"Title {MARKUP}" in flat
    assert f"new: 2 at align (0a1b2c3d): {MARKUP}\\n\\u202e" in flat
    for words in (html, text):
        assert "about 2h 00m; 80% sure: within 3h 00m" in words


@pytest.mark.parametrize("word", ["step", LONG], ids=["short", "long"])
def test_the_largest_queue_makes_a_small_mail(tmp_path: Path, word: str) -> None:
    steps, kinds = 300, 1000
    names = [f"{i}{word}" for i in range(steps)]
    waiting = [i * 10**7 for i in range(steps)]
    seconds = [f"clear_{n}_seconds" for n in ("p50", "p80", "lower", "upper")]
    tables = [
        table("by_stage", task_type=names, waiting=waiting, missing=[n // 2 for n in waiting]),
        table(
            *("eta",),
            **{"task_type": names, "waiting": waiting, "status": ["growing"] * steps},
            **{name: [1e7] * steps for name in seconds},
        ),
        table(
            *("failures",),
            **{"task_type": ["align"] * kinds, "failure": [f"{i:08x}" for i in range(kinds)]},
            **{"error": [word] * kinds, "rows": [*range(kinds)]},
            **{
                "new": [i in (5, 7) for i in range(kinds)],
                "retry": ["retry" + " '\"'" * 60] * kinds,
            },
        ),
    ]
    breach = {"threshold": f"{word} > 0", "figure": word, "value": 1, "where": word}
    html, text = written(
        tmp_path,
        tables,
        **{"title": word, "verdict": word * 9, "database": word, "pipeline": {"name": word}},
        **{"breached": [breach] * 99, "warnings": [word] * 99, "tiles": [[word, word]] * 99},
        next=[{"why": word, "command": "queue-insights" + " ''" * 90}] * 99,
    )
    found = " ".join(cells(html))
    for words in (found, text):
        others = int(re.findall(r"(\d+) more steps", words)[0])
        assert others in ([260] if word == "step" else [280, 290])
        beside = [i for i in (others - 1, others, 299) if f" {i}{word[:3]}" in words]
        assert beside == [others, 299]
        assert f"{others} more steps, where {sum(waiting[:others]):,} wait" in words
        order = [words.index(f"({i:08x})") for i in (7, 5, 999, 998, 992)]
        assert order == sorted(order)
        assert f"({991:08x})" not in words
        assert "990 more kinds of failure" in words


def arguments(command: str) -> str:
    """What a shell gives to the program of *command*, a line each."""
    shown = command.replace("queue-insights", "printf '%s\\n'", 1)
    return subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True).stdout


def test_a_command_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    short = "queue-insights retry --id 'a \\ b' --error \"it's   so\" --id -"
    long = " ".join([short, *(f"--id 'number   {i}'" for i in range(9))])
    word, lines = f"queue-insights retry --id {'x' * 99}", "queue-insights retry --id 'a\nb'"
    commands = [short, long, word, lines]
    html, text = written(tmp_path, next=[{"why": "so", "command": c} for c in commands])
    shown = [div.text for div in BeautifulSoup(html, "html.parser").select("td div")]
    note = "Its command does not fit into a mail: see report.html."
    assert shown == [short, long, note, note]
    assert text.count("its command does not fit into a mail") == 2
    assert "xxx" not in text
    found = re.findall(r"^    (queue-insights(?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert [arguments(each) for each in found] == [arguments(short), arguments(long)]
    assert found[1].count("\\\n") >= 2


def test_changes_are_coloured_and_say_since_when(tmp_path: Path) -> None:
    figures = {"waiting": 9, "hidden": 4, "stuck": None, "oldest_waiting_seconds": 7200.0}
    tiles = [[name, {"hidden": "missing"}.get(name, name)] for name in figures]
    told = {"figures": figures, "tiles": tiles, "changes": {"waiting": 1200, "hidden": -3}}
    html, text = written(tmp_path, before={"as_of": "2026-11-23T06:00:00Z"}, **told)
    badges = BeautifulSoup(html, "html.parser").select("span[style*=background-color]")
    colours = [re.findall("background-color:(#.{6})", str(b["style"]))[0] for b in badges]
    assert [badge.text for badge in badges] == ["+1,200", "-3"]
    red, green = ((int(c[1:3], 16), int(c[3:5], 16)) for c in colours)
    assert red[0] > red[1]
    assert green[0] < green[1]
    assert "since 2026-11-23 06:00 UTC" in html
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in ("waiting 9 +1,200 (worse)", "missing 4 -3 (better)", "stuck -"):
        assert line in lines
    assert "Changes are since 2026-11-23 06:00 UTC." in lines
    for both in written(tmp_path, before=None, **told | {"changes": {}}):
        assert "There is no run of a day ago to compare with" in both


def test_a_notebook_that_shows_nothing_of_ours_has_a_mail_too(tmp_path: Path) -> None:
    html, text = written(tmp_path, [table("by_stage", mine=["x"]), table("eta")])
    for words in (BeautifulSoup(html, "html.parser").text, text):
        assert re.findall(r"\S.*", words.split("Mine")[-1])[0] == ABOUT["started_at"]
        assert "report.html" in words


# Of each piece of text: what it says, and its contrast by WCAG with what is behind it.
CONTRASTS = """
const light = (c) => {
  const parts = c.match(/[\\d.]+/g).slice(0, 3).map((p) => p / 255);
  const linear = parts.map((p) => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const ground = getComputedStyle(e).backgroundColor;
    if (!ground.endsWith(', 0)')) return ground;
  }
  return arguments[0] ? 'rgb(18, 18, 18)' : 'rgb(255, 255, 255)';
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
for (let text; text = texts.nextNode();) {
  const element = text.parentElement;
  if (!text.textContent.trim()) continue;
  const [a, b] = [getComputedStyle(element).color, behind(element)].map(light);
  found.push([text.textContent, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
}
return found;
"""


@pytest.mark.proof
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [600, 390])
def test_a_browser_shows_it_in_light_and_dark_at_the_width_of_a_mail(
    incidental: Path, width: int, scheme: str
) -> None:
    with chromium("--host-resolver-rules=MAP * ~NOTFOUND") as browser:
        media = {"media": "", "features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        address = (incidental / "mail.html").as_uri()
        requests(browser)
        browser.get(address)
        assert (set(requests(browser)), complaints(browser)) == ({address}, [])
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        found = browser.execute_script(CONTRASTS, scheme == "dark")
        assert len(found) > 30
        assert [each for each in found if each[1] < 4.5] == []


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def block(language: str, start: str) -> str:
    (found,) = re.findall(rf"^```{language}\n({start}.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def bin(tmp_path: Path) -> Path:
    """A folder with the programs of docs/mail.md and a sendmail that keeps what it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    program(folder, "send-report", block("python", "#!"))
    program(folder, "mail-report", block("sh", "#!"))
    program(folder, "sendmail", f'#!/bin/sh\necho "$@" >&2\nexec cat > "{tmp_path}/sent"\n')
    return folder


def test_the_programs_in_the_docs_send_both_parts_and_keep_the_exit_code(
    bin: Path, tmp_path: Path, incidental: Path
) -> None:
    variables = {**os.environ, "PATH": f"{bin}:/usr/bin:/bin"}
    for code, said in ((3, "breached: hidden > 0: 54"), (0, ""), (1, "no database"), (2, "wrong")):
        page = "" if code in (1, 2) else f"a line\n{incidental}/report.html\n"
        report = f"cat <<'END'\n{page}END\necho '{said}' >&2; exit {code}\n"
        program(bin, "queue-insights", f"#!/bin/sh\n{report}")
        (tmp_path / "sent").unlink(missing_ok=True)
        done = subprocess.run(["mail-report"], env=variables, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        if code in (1, 2):
            assert (done.stderr, (tmp_path / "sent").exists()) == (f"{said}\n", False)
            continue
        assert (done.stdout, done.stderr) == ("", "-t -oi\n")
        sent = email.message_from_bytes(
            (tmp_path / "sent").read_bytes(), policy=email.policy.default
        )
        assert sent["From"] == "reports@example.com"
        assert sent["To"] == "oncall@example.com"
        assert str(sent["Subject"]).startswith("RED: Backlog report: 54 tracks wait")
        assert sent.get_content_type() == "multipart/alternative"
        parts = {part.get_content_type(): part.get_content() for part in sent.iter_parts()}
        assert [*parts] == ["text/plain", "text/html"]
        for kind, text in zip(("txt", "html"), parts.values(), strict=True):
            assert text.splitlines() == (incidental / f"mail.{kind}").read_text().splitlines()
