"""A report by mail: what ``mail.html`` and ``mail.txt`` say, their size, how they are sent."""

import email
import email.policy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from queue_insights.report import mail
from reporting import ROOT, contrast

DOCS = (ROOT / "docs" / "mail.md").read_text("utf-8")
LARGEST, WIDEST = 100_000, 78  # bytes of the HTML, columns of the text
MARKUP = "<img src=x onerror=alert(1)> & <b>\"bold\"</b> 'x' {{ 7 * 7 }}"
LONG = "'\"&<>" * 200  # five characters for each in HTML
TAGS = "html head meta title body h1 table tr td div span b br"
ABOUT: dict[str, Any] = {
    **{"report": "mine", "title": "Mine", "started_at": "2026-11-24T06:00:00Z", "as_of": None},
    **{"database": None, "pipeline": None, "times": None, "verdict": None, "figures": {}},
    **{"breached": [], "warnings": []},
}


def written(
    folder: Path, tables: list[dict[str, Any]] | None = None, **summary: Any
) -> tuple[str, str]:
    """The mail about such a summary, as HTML and as text, which are as any mail has to be."""
    mail.write(folder, ABOUT | summary, tables or [])
    html, text = ((folder / f"mail.{kind}").read_text("utf-8") for kind in ("html", "txt"))
    assert len(html.encode()) <= LARGEST
    assert [line for line in text.splitlines() if len(line) > WIDEST] == []
    elements = BeautifulSoup(html, "html.parser").find_all(True)
    assert {element.name for element in elements} <= set(TAGS.split())
    for element in elements:  # what has a colour has a ground, or is lost in the dark
        colours = dict(re.findall(r"((?:background-)?color):(#\w{6})", str(element.get("style"))))
        assert colours.keys() in (set(), {"color", "background-color"})
        assert not colours or not element.text.strip() or contrast(*colours.values()) >= 4.5
    attributes = {(name, str(value)) for each in elements for name, value in each.attrs.items()}
    asking = {"src", "href", "background", "srcset", "class", "id"}
    assert not [name for name, _ in attributes if name in asking or name.startswith("on")]
    assert not [value for _, value in attributes if re.search("url\\(|:/|flex|grid", value)]
    return html, text


def table(name: str, **columns: list[Any]) -> dict[str, Any]:
    rows = [*map(list, zip(*columns.values(), strict=True))]
    return {"name": name, "columns": [*columns], "rows": rows}


def cells(html: str) -> list[str]:
    """The text of each row of the mail, without that of the rows in it."""
    rows = BeautifulSoup(html, "html.parser").find_all("tr")
    return [" ".join(row.get_text(" ").split()) for row in rows if not row.find("tr")]


def test_text_from_anywhere_is_text(tmp_path: Path) -> None:
    ranges = {"clear_p50_seconds": [7200.0], "clear_p80_seconds": [10800.0]}
    tables = [
        table("by_stage", task_type=[MARKUP], waiting=[3], missing=[1]),
        table("eta", task_type=[MARKUP], waiting=[3], status=["draining"], **ranges),
        table(
            *("failures",),
            **{"task_type": ["align"], "failure": ["0a1b2c3d"], "rows": [2], "new": [True]},
            error=[f"{MARKUP}\n\u202e"],
        ),
    ]
    html, text = written(tmp_path, tables, title=f"Title {MARKUP}")
    flat = " ".join(text.split())
    assert f"new align (0a1b2c3d): {MARKUP}\\n\\u202e" in " ".join(cells(html))
    assert f"new: 2 at align (0a1b2c3d): {MARKUP}\\n\\u202e" in flat
    for words in (BeautifulSoup(html, "html.parser").text, flat):
        assert f"Title {MARKUP}" in words
        assert "about 2h 00m; 80% sure: within 3h 00m" in words


@pytest.mark.parametrize("word", ["step", LONG], ids=["short", "long"])
def test_the_largest_queue_makes_a_small_mail(tmp_path: Path, word: str) -> None:
    steps, kinds = range(300), range(1000)
    waiting = [i * 10**7 for i in steps]
    names = {"task_type": [f"{i}{word}" for i in steps], "waiting": waiting}
    ranges = {f"clear_{n}_seconds": [1e7] * len(steps) for n in ("p50", "p80", "lower", "upper")}
    failures = {
        **{"task_type": ["align"] * len(kinds), "failure": [f"{i:08x}" for i in kinds]},
        **{"error": [word] * len(kinds), "rows": [*kinds], "new": [i in (5, 7) for i in kinds]},
        "retry": ["retry" + " '\"'" * 60] * len(kinds),
    }
    tables = [
        table("by_stage", **names, missing=[n // 2 for n in waiting]),
        table("eta", **names, status=["growing"] * len(steps), **ranges),
        table("failures", **failures),
    ]
    breach = {"threshold": f"{word} > 0", "figure": word, "value": 1, "where": word}
    about = {"title": word, "verdict": word * 9, "database": word, "pipeline": {"name": word}}
    about |= {"breached": [breach] * 99, "warnings": [word] * 99, "tiles": [[word, word]] * 99}
    about["next"] = [{"why": word, "command": "queue-insights" + " ''" * 90}] * 99
    html, text = written(tmp_path, tables, **about)
    for words in (" ".join(cells(html)), text):
        others = int(re.findall(r"(\d+) more steps", words)[0])
        assert others in ([260] if word == "step" else [280, 290])
        assert f"{others} more steps, where {sum(waiting[:others]):,} wait" in words
        order = [words.index(f"({i:08x})") for i in (7, 5, 999, 998)]
        assert order == sorted(order)
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


def test_changes_are_marked_and_say_since_when(tmp_path: Path) -> None:
    figures = {"waiting": 9, "hidden": 4, "stuck": None}
    tiles = [[name, {"hidden": "missing"}.get(name, name)] for name in figures]
    told = {"figures": figures, "tiles": tiles, "changes": {"waiting": 1200, "hidden": -3}}
    html, text = written(tmp_path, before={"as_of": "2026-11-23T06:00:00Z"}, **told)
    badges = BeautifulSoup(html, "html.parser").select("span[style*=background-color]")
    assert [badge.text for badge in badges] == ["+1,200", "-3"]
    assert "since 2026-11-23 06:00 UTC" in html
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in ("waiting 9 +1,200 (worse)", "missing 4 -3 (better)", "stuck -"):
        assert line in lines
    assert "Changes are since 2026-11-23 06:00 UTC." in lines


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def block(language: str, start: str) -> str:
    (found,) = re.findall(rf"^```{language}\n({start}.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_programs_in_the_docs_send_both_parts_and_keep_the_exit_code(tmp_path: Path) -> None:
    bin, sent = tmp_path / "bin", tmp_path / "sent"
    bin.mkdir()
    (bin / "python3").symlink_to(sys.executable)
    program(bin, "send-report", block("python", "#!"))
    program(bin, "mail-report", block("sh", "#!"))
    program(bin, "sendmail", f'#!/bin/sh\necho "$@" >&2\nexec cat > "{sent}"\n')
    parts = written(tmp_path, title="Backlog report", verdict="54 Lieder: שיר, ü")
    breached = [{"threshold": "hidden > 0"}]
    about = {"title": "Backlog report", "verdict": "54 tracks wait", "breached": breached}
    (tmp_path / "summary.json").write_text(json.dumps(ABOUT | about))
    variables = {**os.environ, "PATH": f"{bin}:/usr/bin:/bin"}
    for code, said in ((3, "breached: hidden > 0: 54"), (0, ""), (1, "no database"), (2, "wrong")):
        page = "" if code in (1, 2) else f"a line\n{tmp_path}/report.html\n"
        report = f"cat <<'END'\n{page}END\necho '{said}' >&2; exit {code}\n"
        program(bin, "queue-insights", f"#!/bin/sh\n{report}")
        sent.unlink(missing_ok=True)
        done = subprocess.run(["mail-report"], env=variables, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        if code in (1, 2):
            assert (done.stderr, sent.exists()) == (f"{said}\n", False)
            continue
        assert (done.stdout, done.stderr) == ("", "-t -oi\n")
        found = email.message_from_bytes(sent.read_bytes(), policy=email.policy.default)
        assert (found["From"], found["To"]) == ("reports@example.com", "oncall@example.com")
        assert str(found["Subject"]).startswith("RED: Backlog report: 54 tracks wait")
        assert found.get_content_type() == "multipart/alternative"
        contents = {part.get_content_type(): part.get_content() for part in found.iter_parts()}
        assert [*contents] == ["text/plain", "text/html"]
        for part, content in zip(reversed(parts), contents.values(), strict=True):
            assert content.splitlines() == part.splitlines()
