"""A report as a mail: ``mail.html``, for any mail client, and the same as plain text."""

import re
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from queue_insights import formats
from queue_insights.report import thresholds

_LARGEST, _WIDTH = 100_000, 78  # bytes of the HTML, columns of the text
_COMMAND, _KINDS, _TILES = 300, 10, 6  # at most so long a command, so many kinds of failure
_STEPS = (40, 20, 10)  # at most so many steps; fewer where that would be too large
_WORD = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\])+""")


def write(folder: Path, summary: dict[str, Any], tables: list[dict[str, Any]]) -> None:
    """Write both into *folder*: what *summary* (as docs/summary.md has it) and, of *tables* (each
    name, columns, rows), by_stage, failures and eta say. What is not there is left out."""
    filters = {"cut": _cut, "until": _until, "lines": command_lines, "wrap": _wrap}
    formats.TEMPLATES.filters |= filters | {"describe": thresholds.describe}
    for most in _STEPS:
        content = _content(summary, tables, most)
        html = formats.TEMPLATES.get_template("mail.html.j2").render(run=summary, **content)
        if len(html.encode()) <= _LARGEST:
            break
    (folder / "mail.html").write_text(html, "utf-8")
    text = formats.TEMPLATES.get_template("mail.txt.j2").render(run=summary, **content)
    (folder / "mail.txt").write_text(text, "utf-8")


def _content(summary: dict[str, Any], tables: list[dict[str, Any]], most: int) -> dict[str, Any]:
    """What both templates show, of at most so many steps."""
    figures = summary["figures"]
    tiles = summary.get("tiles") or [(name, formats.label(name)) for name in figures]
    steps = _frame(tables, "by_stage", ["task_type"], ["waiting", "missing"])
    failures = _frame(tables, "failures", ["task_type", "failure", "error"], ["rows"])
    eta = _frame(tables, "eta", ["task_type", "status", "clear_p50_seconds"], ["waiting"])
    failures["new"] = failures["new"].eq(True) if "new" in failures else False
    failures = failures.sort_values(["new", "rows"], ascending=False, kind="stable")
    shown = _largest(steps, most)
    return {
        "tiles": [(*tile, figures.get(tile[0])) for tile in tiles[:_TILES]],
        "changes": summary.get("changes") or {},
        "steps": shown.to_dict("records"),
        "others": steps.drop(shown.index)["waiting"],
        "failures": failures.head(_KINDS).to_dict("records"),
        "kinds": len(failures),
        "eta": _largest(eta[eta["waiting"] > 0], most).to_dict("records"),
    }


def command_lines(command: str) -> list[str]:
    """The lines of a command, which a shell takes for one; none where it does not fit into a mail:
    a part of it would do something else."""
    words, widest = _WORD.findall(command), _WIDTH - 8  # for the indent and a backslash
    if not words or " ".join(words) != command or not command.isprintable():
        return []
    if len(command) > _COMMAND or max(map(len, words)) > widest:
        return []
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= widest:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def _frame(
    tables: list[dict[str, Any]], name: str, others: list[str], counts: list[str]
) -> pd.DataFrame:
    """The table of that name, its *counts* int64; empty where it lacks one of the columns."""
    for table in tables:
        if table["name"] == name and {*others, *counts} <= set(table["columns"]):
            frame = pd.DataFrame(table["rows"], columns=table["columns"], dtype=object)
            numbers = {n: pd.to_numeric(frame[n], "coerce").fillna(0) for n in counts}
            return frame.assign(**{n: number.astype("int64") for n, number in numbers.items()})
    return pd.DataFrame(columns=[*others, *counts])


def _largest(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """The rows where most waits, at most so many, in their own order."""
    order = frame["waiting"].sort_values(ascending=False, kind="stable")
    return frame.loc[order.index[:most].sort_values()]


def _until(step: dict[str, Any]) -> str:
    """``about 5h 00m; 80% sure: within 9h 00m``, or why nothing can be said."""
    known = {n: step.get(f"clear_{n}_seconds") for n in ("p50", "p80", "lower", "upper")}
    known = {name: value for name, value in known.items() if formats.plain(value) is not None}
    shown = {name: formats.cell("_seconds", value) for name, value in known.items()}
    if "p50" not in shown:
        return formats.label(str(step["status"]).replace("insufficient", "too little"))
    sure = f"within {shown['p80']}" if "p80" in shown else ""
    if {"lower", "upper"} <= set(shown):
        sure = f"{shown['lower']} to {shown['upper']}"
    growing = "growing: " if step["status"] == "growing" else ""
    return f"{growing}about {shown['p50']}{sure and '; 80% sure: '}{sure}"


def _cut(value: Any, longest: int = 200) -> str:
    return formats.visible(str(value), longest)


def _wrap(text: str, indent: int = 0) -> str:
    blank = " " * indent
    return fill(text, _WIDTH, initial_indent=blank, subsequent_indent=blank)
