"""Random input, in parameters, files and command lines, is no traceback."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import assume, example, given
from hypothesis import strategies as st

from conftest import Bench, Url, database
from fuzzing import ANYTHING, HOSTILE, cases, clear
from operating import everything, give_rows, many
from queue_insights.cli import main
from queue_insights.database import READ_URL
from queue_insights.errors import InputError
from queue_insights.pipeline import load, shipped
from queue_insights.reads import READS
from queue_insights.report import parameters
from reporting import COMMANDS

REPORTS = {
    file.stem: parameters.declared(json.loads(file.read_text(encoding="utf-8")), file.stem)
    for file in sorted(shipped("notebooks").glob("*.ipynb"))
}
FITS: dict[str, Callable[[Any], bool]] = {
    **{"str": lambda value: type(value) is str, "int": lambda value: type(value) is int},
    "Optional[str]": lambda value: value is None or type(value) is str,
    "Optional[int]": lambda value: value is None or type(value) is int,
    "list[str]": lambda value: type(value) is list and all(type(item) is str for item in value),
}
TEXTS = st.one_of(
    *(HOSTILE, ANYTHING.map(str)),
    st.text(alphabet="0123456789.eE+-_xob:[]{}\"'!&*#\n ,~yn", max_size=10),
)


@cases(60)
@given(st.data())
def test_any_parameters_of_a_report_are_of_its_types_or_an_input_error(data: st.DataObject) -> None:
    report = data.draw(st.sampled_from(sorted(REPORTS)))
    known = st.sampled_from(sorted(REPORTS[report]))
    names = data.draw(st.sampled_from([known, known, HOSTILE]))
    values = data.draw(st.dictionaries(names, ANYTHING, max_size=2))
    given_texts = data.draw(st.lists(st.tuples(names, TEXTS), max_size=1))
    try:
        found = parameters.validated(REPORTS[report], values, given_texts, report, "-f x.yaml")
    except InputError as error:
        return clear(error)
    assert set(found) == set(values) | {name for name, _ in given_texts}
    for name, value in found.items():
        assert FITS[REPORTS[report][name].annotation](value), (name, value)
    for name, value in values.items():
        if name not in dict(given_texts):
            assert (type(found[name]), found[name]) == (type(value), value)


KARAOKE = (shipped("params") / "pipelines" / "karaoke.yaml").read_text()


def mangled(edits: list[tuple[int, int, str]]) -> bytes:
    """karaoke.yaml with, for each edit, one line replaced by another, or the same, marked."""
    lines = KARAOKE.splitlines(keepends=True)
    for here, there, mark in edits:
        lines[here % len(lines)] = mark + lines[there % len(lines)]
    return "".join(lines).encode(errors="surrogatepass")


MARKS = st.sampled_from([" ", "  ", "", "# ", "\t", "- ", "&a ", "*a", "!!x ", "? ", "---\n", "]"])
EDITS = st.tuples(st.integers(0, 99), st.integers(0, 99), MARKS | st.text(max_size=3))
MANGLED = st.lists(EDITS, min_size=1, max_size=4).map(mangled)
PIECES = "abe:-[]{}&*!|>?#%@`,'\"\\ \n0~<=."


@cases(90)
@given(MANGLED | st.binary(max_size=40) | st.text(PIECES, max_size=40).map(str.encode))
@example(b"!!bool x")
@example(b"!!timestamp x")
@example(b"? {a: b}\n: c")
@example(b"a: 1\na: 2")
@example(b"a: 1e99999999999\nb: " + b"9" * 5000)
def test_any_bytes_are_a_pipeline_or_an_input_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    try:
        found = load(file)
    except InputError as error:
        return clear(error, str(file), lines=99)
    assert found.steps


@pytest.fixture(scope="module")
def fuzzed(server: Url, templates: dict[str, str]) -> Iterator[Bench]:
    """One database for all cases, with work in every state that an action takes."""
    with (
        database(server, templates["a"]) as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        bench = Bench(url, "a", connection, None)  # type: ignore[arg-type]
        many(bench, "audio_ready", 5)
        started = {"attempts": "1", "last_attempt_at": "now() - interval '5 hours'"}
        give_rows(bench, many(bench, "aligned", 3, "s"), "translate", "running", **started)
        give_rows(bench, many(bench, "translated", 3, "f"), "separate", "failed", attempts="3")
        give_rows(bench, many(bench, "segmented", 3, "d"), "enhance", "completed")
        give_rows(bench, many(bench, "ready", 3, "o"), "clip", "pending")
        yield bench


AGES = st.one_of(
    st.sampled_from(
        ["1h", "7D", "36500d", "0s", "7", "-1d", "5\u017f", "٣h", "1e5d", "9" * 400 + "w"]
    ),
    TEXTS,
)
WORDS = st.one_of(HOSTILE, st.sampled_from(["align", "clip", "algin", "", "\udc80", "-", "--"]))
NUMBERS = st.sampled_from(["0", "1", "50", "-1", "99999999999999999999", "1.5", "", "x", "٣"])
# What an option may be given; those not listed take WORDS. No process can be given a NUL; where one
# is tried it stands for the same from a file or a notebook.
TAKES: dict[str, st.SearchStrategy[str]] = {
    **dict.fromkeys(("--limit", "--pause"), NUMBERS),
    **dict.fromkeys(("--since", "--older-than", "--prune", "--bucket", "--keep"), AGES),
    "--format": st.sampled_from(["table", "json", "csv", "xml", ""]),
    "--state": WORDS | st.sampled_from(["stuck", "missing", "other", "stck"]),
    "--zone": WORDS | st.sampled_from(["UTC", "Europe/Berlin", "America", "../x", "x" * 5000]),
    "--pipeline": st.sampled_from(
        ["karaoke", "karaok", "", ".", "./none.yaml", "no.yaml/x", "\x00", "x" * 5000]
    ),
    "--attempts": st.sampled_from(["refund", "zero", "all"]),
    "--status": st.sampled_from(["pending", "failed", "completed"]),
    "--confirm": WORDS
    | st.sampled_from(["5-a-b-c-d", "5.0.0-00000000-00000000-00000000-00000000"]),
    "--max-rows": NUMBERS,
    "--output": st.sampled_from(["out.sql", "deep/out.sql", "", ".", "x" * 300, "\udc80"]),
}
FLAGS = ("--sql", "--sources", "--end-to-end", "--apply", "--ddl", "--probe")
ACTS = {"install", "uninstall", "demo", "lab"}
PATHS = [path for path in COMMANDS if not ACTS & set(path)]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Commands that read, dry runs, and refused ones; nothing here confirms or acts at once."""
    path = draw(st.sampled_from([*PATHS, *((read,) for read in READS)]))
    parameters = COMMANDS[path].params
    own = st.sampled_from([p.opts[-1] for p in parameters if isinstance(p, click.Option)])
    chosen = draw(st.lists(own | own | st.sampled_from([*TAKES, *FLAGS]), max_size=4))
    if "--apply" in chosen:  # to be refused: without anything that confirms
        chosen = [option for option in chosen if option != "--max-rows"]
    line = list(path)
    for option in chosen:
        line += [option, *([] if option in FLAGS else [draw(TAKES.get(option, WORDS))])]
    line += [draw(NUMBERS | WORDS) for p in parameters if isinstance(p, click.Argument)]
    if draw(st.integers(0, 5)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(WORDS))
    # A report is refused before it runs.
    return [*line, "-p", "no such parameter", "1"] if path == ("report",) else line


@cases(24)
@given(line=command_lines())
@example(["reset", "--error", "\udc80"])
@example(["reset", "--error", "\x00"])
@example(["undo", "99999999999999999999"])
@example(["missing", "--limit", "99999999999999999999"])
@example(["backlog", "--pipeline", "\x00"])
@example(["grants", "reader", "\x00"])
@example(["views", "sql", "--output", "x" * 300])
def test_any_command_line_is_an_answer_or_a_clear_error(
    fuzzed: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    assume(not ACTS & set(line))
    before = everything(fuzzed.connection)
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        result = CliRunner(env={READ_URL: fuzzed.url}).invoke(main, line)
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    assert result.exit_code in (0, 1, 2, 3)
    assert "Traceback" not in result.output
    if result.exit_code in (1, 2):
        assert result.stderr or line[0] == "doctor"
    assert everything(fuzzed.connection) == before
    assert before[2] is None  # no ledger, so no run
