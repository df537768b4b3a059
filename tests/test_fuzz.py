"""Random input: an answer or a clear error, never another exception, never SQL out of a name.

What random values and bytes do to a pipeline file is in test_pipeline; here its tree and its lines
are rearranged, and what loads is compiled and taken apart again token by token.
"""

import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from conftest import Bench
from operating import everything, give_rows, many
from queue_insights import eta, flow, parameters, pipeline, queries, resources, thresholds
from queue_insights.actions.definitions import ACTIONS, Parameters, selection
from queue_insights.cli import main
from queue_insights.database import READ_URL
from queue_insights.errors import InputError
from queue_insights.pipeline import Pipeline, parse_duration
from queue_insights.schema import Schema

KARAOKE = (resources.folder("params") / "pipelines" / "karaoke.yaml").read_text()
TREE: dict[str, Any] = yaml.safe_load(KARAOKE)
NOW = datetime(2026, 3, 2, tzinfo=UTC)

quick_cases = settings(max_examples=1000, suppress_health_check=list(HealthCheck))
many_cases = settings(quick_cases, max_examples=500)

HOSTILE = st.one_of(
    st.text(alphabet="\"';-/*\\%:$(){}[]., \t\n\rEUx0ä🎵\u202e\u2028", min_size=1, max_size=12),
    st.text(min_size=1, max_size=12),
    st.sampled_from(
        [
            *("'; DROP TABLE tracks; --", '"; DROP TABLE tracks; --', "\\'; SELECT 1; --", "%(x)s"),
            *(":param", "$1", "$$", "/*", "*/ --", "E'\\''", "U&'\\0027'", "''", '""', "%%", "%s"),
            *("select", "NULL", "user", "a.b", "0", "\x00", "\ud800", "x" * 60, "é" * 31),
        ]
    ),
)


def clear(error: InputError, start: str = "", lines: int = 1) -> None:
    """Whether an error is fit for a terminal."""
    found = str(error).split("\n")
    assert 0 < len(found) <= lines
    assert all(line.startswith(start) and line for line in found)
    assert error.exit_code == 2


# --- pipeline files -----------------------------------------------------------------------------


def nodes(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of a tree, but for its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from nodes(value, (*at, key))


PLACES = list(nodes(TREE))


def parent_of(tree: Any, place: tuple[Any, ...]) -> Any:
    """What holds *place*; None if it is no longer there."""
    for part in place[:-1]:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            return None
    inside = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return tree if place[-1] in inside else None


@st.composite
def rearranged(draw: st.DrawFn) -> dict[str, Any]:
    """karaoke.yaml with places removed, renamed, doubled, filled with what stands elsewhere."""
    tree = copy.deepcopy(TREE)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.sampled_from(PLACES))
        holder, key = parent_of(tree, place), place[-1]
        if holder is None:
            continue
        match draw(st.sampled_from(["drop", "swap", "wrap", "name", "rename", "double"])):
            case "drop":
                del holder[key]
            case "swap":
                other = draw(st.sampled_from(PLACES))
                if (theirs := parent_of(tree, other)) is not None:
                    holder[key] = copy.deepcopy(theirs[other[-1]])
            case "wrap":
                holder[key] = draw(st.sampled_from([[holder[key]], {"a": holder[key]}]))
            case "name":
                holder[key] = draw(HOSTILE)
            case "rename" if isinstance(holder, dict):
                holder[draw(HOSTILE)] = holder.pop(key)
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
    return tree


def loaded(tree: Any) -> Pipeline | None:
    """The pipeline of a parsed file, or None where it is refused as it should be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "read_yaml", lambda path: tree)
        try:
            return pipeline.load("./file.yaml")
        except InputError as error:
            clear(error, "file.yaml: ", lines=99)
            return None


@quick_cases
@given(rearranged())
def test_a_rearranged_pipeline_is_one_or_an_input_error(tree: dict[str, Any]) -> None:
    found = loaded(tree)
    if found is not None:
        stages = [found.stages.index(step.stage) for step in found.steps]
        assert stages == sorted(stages)


@settings(quick_cases, max_examples=150)
@given(st.data())
def test_a_file_of_shuffled_lines_is_a_pipeline_or_an_input_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    lines = KARAOKE.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 4))):
        here, there = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match data.draw(st.sampled_from(["cut", "move", "double", "indent", "mark"])):
            case "cut" if len(lines) > 5:
                del lines[here]
            case "move":
                lines.insert(there, lines.pop(here))
            case "double":
                lines.insert(there, lines[here])
            case "indent":
                lines[here] = data.draw(st.sampled_from([" ", "  ", "\t", "- "])) + lines[here]
            case "mark":
                lines[here] = data.draw(st.sampled_from(["&a ", "*a", "!!x ", "? ", "---\n", "]"]))
    file = tmp_path / "file.yaml"
    file.write_text("".join(lines), encoding="utf-8")
    try:
        pipeline.load(file)
    except InputError as error:
        clear(error, str(file), lines=99)


# --- names in SQL -------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<string>'(?:[^']|'')*')
    | "(?P<quoted>(?:[^"]|"")+)"
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
    | (?P<sign>::|[-+*/<>=~!@#%^&|`?]+|[()\[\],.:])
    """,
    re.VERBOSE,
)


def tokens(text: str) -> list[tuple[str, str]]:
    """SQL as Postgres reads it (standard_conforming_strings), names and strings unquoted; fails for
    what no statement of ours has: comments, dollar quotes, a semicolon, prefixed strings."""
    found, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match, f"no token at {text[at : at + 40]!r}"
        kind, value, at = str(match.lastgroup), str(match[str(match.lastgroup)]), match.end()
        if kind == "string":
            value = value[1:-1].replace("''", "'")
            assert not found or found[-1] not in PREFIXES, f"{found[-1]} before a string"
        elif kind == "quoted":
            kind, value = "word", value.replace('""', '"')
        elif kind == "word":
            value = value.lower()
        elif kind == "sign":
            assert "--" not in value
            assert "/*" not in value
        if kind != "space":
            found.append((kind, value))
    return found


PREFIXES = [("word", prefix) for prefix in ("e", "u", "b", "x", "n")]
TRACK_ROLES = ("id", "title", "stage", "updated_at")
TASK_ROLES = (
    *("id", "track_id", "task_type", "status", "attempts", "max_attempts", "last_attempt_at"),
    *("next_retry_at", "error_message", "processing_duration_ms", "created_at", "updated_at"),
    *("completed_at", "subject_type", "subject_id"),
)
TYPES = {"attempts": "int", "max_attempts": "int", "processing_duration_ms": "int", "id": "int"}
COLUMNS = [("tracks", role) for role in TRACK_ROLES] + [("tasks", role) for role in TASK_ROLES]
NAMES = len(COLUMNS) + 3  # columns, two tables, their schema
VALUES = 6  # three stages, two tasks, the subject


def tree_of(names: list[str], values: list[str]) -> dict[str, Any]:
    """A pipeline of these names of columns and tables and these values."""

    def quote(*parts: str) -> str:
        return ".".join('"' + part.replace('"', '""') + '"' for part in parts)

    *columns, tracks, tasks, schema = names
    tables: dict[str, dict[str, str]] = {"tracks": {}, "tasks": {"subject": values[5]}}
    for (table, role), name in zip(COLUMNS, columns, strict=True):
        tables[table][role] = name
    tables["tracks"]["table"], tables["tasks"]["table"] = (
        quote(schema, tracks),
        quote(schema, tasks),
    )
    return {
        **{"name": "fuzz", **tables, "stages": values[:3], "terminal": values[2:3]},
        "steps": [{"stage": values[i], "task": values[3 + i]} for i in range(2)],
    }


def schema_of(found: Pipeline, variant: Any) -> Schema:
    """The pipeline's tables as a database would have them that has all of its columns."""

    def table(columns: Any, roles: tuple[str, ...], types: dict[str, str]) -> sa.Table:
        schema, name = pipeline.split_table(columns.table)
        kinds = {"int": sa.Integer(), "text": sa.Text(), "time": sa.DateTime(timezone=True)}
        made, seen = [], set()
        for role in roles:
            kind = types.get(role, "time" if role.endswith("_at") else "text")
            if (column := getattr(columns, role)) not in seen:
                made.append(sa.Column(column, kinds[kind], key=role))
            else:  # the same column in two roles: no database tells them apart
                assume(False)
            seen.add(column)
        return sa.Table(name, sa.MetaData(), *made, schema=schema)

    tracks = table(found.tracks, TRACK_ROLES, {})
    return Schema(found, tracks, table(found.tasks, TASK_ROLES, TYPES), variant, {})


QUERIES: dict[str, Callable[[Schema], sa.ClauseElement]] = {
    "backlog": queries.backlog,
    "audit": queries.audit,
    "missing": queries.missing,
    "upcoming": queries.upcoming,
    "tasks": lambda schema: queries.tasks(schema, "stuck"),
    "orphans": queries.orphans,
    "track": lambda schema: queries.track(schema, schema.pipeline.stages[0]),
    "throughput": lambda schema: flow.throughput(schema, NOW, "1D", "1D"),
    "durations": lambda schema: flow.durations(schema, NOW),
    "flow": lambda schema: flow.flow(schema, NOW, "1D", "1D"),
    "flow_averages": lambda schema: flow.flow_averages(schema, NOW),
    "eta_end_to_end": lambda schema: eta.eta_end_to_end(schema, NOW),
    **{
        f"plan_{name}": lambda schema, action=action: sa.select(
            selection(schema, action, Parameters(error=schema.pipeline.stages[0]))
        )
        for name, action in ACTIONS.items()
    },
}
PLAIN_NAMES = [f"plain_name_{i}_" for i in range(NAMES)]
PLAIN_VALUES = [f"plain value {i}" for i in range(VALUES)]


@cache
def plain(query: str, variant: str) -> list[tuple[str, str]]:
    found = loaded(tree_of(PLAIN_NAMES, PLAIN_VALUES))
    assert found
    return tokens(queries.compile_sql(QUERIES[query](schema_of(found, variant))))


@st.composite
def naming(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Names that a database can have (none twice; SQLAlchemy abbreviates those over 57 bytes where
    it repeats them), and other values; in each a number, so that the SQL has none of them anyway.
    """
    some = draw(st.lists(HOSTILE, min_size=5, max_size=5))
    names = [f"{some[i % 5]}{i}~" for i in range(NAMES)]
    values = [f"{some[-1 - i % 5]}{draw(HOSTILE)}{i}!" for i in range(VALUES)]
    return [name.encode(errors="ignore")[-57:].decode(errors="ignore") for name in names], values


@settings(quick_cases, max_examples=300)
@given(naming(), st.sampled_from(sorted(QUERIES)), st.sampled_from("ab"))
@example((PLAIN_NAMES, PLAIN_VALUES), "backlog", "a")
def test_whatever_the_names_the_sql_is_the_same_but_for_them(
    given_names: tuple[list[str], list[str]], query: str, variant: str
) -> None:
    names, values = given_names
    found = loaded(tree_of(names, values))
    if found is None:
        assert re.search("[\x00\ud800-\udfff]", "".join([*names, *values]))
        return
    text = queries.compile_sql(QUERIES[query](schema_of(found, variant)))
    as_word = dict(zip(names, PLAIN_NAMES, strict=True))
    as_value = dict(zip(values, PLAIN_VALUES, strict=True))
    back = {"word": as_word, "string": as_value | as_word}
    renamed = [(kind, back.get(kind, {}).get(value, value)) for kind, value in tokens(text)]
    # A search for text has its % and _ escaped: compare what it looks for.
    expected = plain(query, variant)
    assert len(renamed) == len(expected)
    for ours, theirs in zip(renamed, expected, strict=True):
        if ours != theirs:
            assert theirs[0] == ours[0] == "string"
            assert PLAIN_VALUES[0] in theirs[1].replace("/", "")
            assert values[0] in re.sub("/([/%_])", r"\1", ours[1])


@settings(quick_cases, max_examples=5)
@given(names=naming(), variant=st.sampled_from("ab"))
def test_postgres_reads_the_names_as_names(
    fuzzed: Bench, names: tuple[list[str], list[str]], variant: str
) -> None:
    found = loaded(tree_of(*names))
    assume(found is not None)
    assert found
    made = schema_of(found, variant)
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(fuzzed.url))
    with engine.connect() as connection:
        connection.execute(sa.schema.CreateSchema(made.tracks.schema or ""))
        made.tracks.metadata.create_all(connection)
        made.tasks.metadata.create_all(connection)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        for query in QUERIES.values():
            # Binary results take the protocol in which Postgres refuses a second statement.
            driver.cursor(binary=True).execute(
                f"EXPLAIN {queries.compile_sql(query(made))}".encode()
            )
        connection.rollback()


# --- parameters, thresholds, durations ----------------------------------------------------------

REPORTS = {
    file.stem: parameters.declared(json.loads(file.read_text(encoding="utf-8")), file.stem)
    for file in sorted(resources.folder("notebooks").glob("*.ipynb"))
}
FITS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: type(value) is str,
    "int": lambda value: type(value) is int,
    "str | None": lambda value: value is None or type(value) is str,
    "int | None": lambda value: value is None or type(value) is int,
    "list[str]": lambda value: type(value) is list and all(type(item) is str for item in value),
}
SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), HOSTILE),
    *(st.dates(), st.binary(max_size=3), st.just("false"), st.just("null"), st.just("[a, 'b']")),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=2)
)
TEXTS = st.one_of(
    st.text(max_size=10),
    HOSTILE,
    st.text(alphabet="0123456789.eE+-_xob:[]{}\"'!&*#\n ,~yn", max_size=10),
    ANYTHING.map(str),
)


def test_the_shipped_reports_take_only_types_that_are_checked_here() -> None:
    assert {p.annotation for report in REPORTS.values() for p in report.values()} == set(FITS)


@many_cases
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


UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


@quick_cases
@given(
    st.one_of(
        TEXTS,
        st.lists(
            st.tuples(
                st.sampled_from(["1", "30", "0.5", "9" * 400, "0", "٣"]),
                st.sampled_from(
                    [*UNITS, "S", "H", "D", "MIN", "\u017f", "m\u0131n", "K", "y", "", " d "]
                ),
            ).map("".join),
            max_size=3,
        ).map("".join),
    )
)
@example("5\u017f")
@example("1e5d")
@example("0.0000001s")
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        found = parse_duration(text)
    except ValueError:
        return
    assert timedelta() < found <= timedelta(days=36_500)
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*(min|[smhdw])\s*", text.lower())
    assert "".join(text.lower().split()) == "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    assert math.isclose(found.total_seconds(), seconds, rel_tol=1e-9, abs_tol=1e-5)


FIGURES: dict[str, Any] = {
    "hidden": 3,
    "oldest_waiting_seconds": 60.0,
    "verdict": "x",
    "none": None,
}
LIMITS = st.one_of(TEXTS, st.integers().map(str), st.sampled_from(["2h", "x", "'x'", "1.5", "-3"]))
SIGNS = st.sampled_from(["<", ">", "<=", ">=", "==", "!=", "=", ""])
NEAR = st.sampled_from(["2", "3", "3.0", "4"])
TABLE_VALUES = st.none() | st.integers() | st.floats() | st.text(max_size=3)
COMPARED = {
    **{"<": float.__lt__, ">": float.__gt__, "<=": float.__le__, ">=": float.__ge__},
    **{"==": float.__eq__, "!=": float.__ne__},
}


@quick_cases
@given(st.data())
def test_any_threshold_is_a_comparison_or_an_input_error(data: st.DataObject) -> None:
    names = st.sampled_from(
        ["hidden", *FIGURES, "oldest_waiting", "t.a", "t.task_type", "t.b", "nope"]
    )
    limit = data.draw(st.sampled_from([NEAR, LIMITS]))
    built = st.tuples(names, SIGNS, limit).map(" ".join)
    text = data.draw(data.draw(st.sampled_from([built, built, TEXTS])))
    values = data.draw(st.lists(TABLE_VALUES, max_size=3))
    rows = [["align", value, 1] for value in values]
    table = {"name": "t", "columns": ["task_type", "a", "b"], "rows": rows}
    try:
        threshold = thresholds.parse(text)
        found = thresholds.breaches([threshold], FIGURES, [table])
        for breach in found:
            assert thresholds.describe(breach).startswith(f"{text}: ")
    except InputError as error:
        return clear(error, "thresholds: ")
    if threshold.figure == "hidden":
        compare = COMPARED[threshold.sign]
        over = threshold.limit
        holds = compare(3.0, over) if isinstance(over, float) else threshold.sign == "!="
        assert bool(found) == holds
    assert all(breach["value"] is not None for breach in found)


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzzed(server: Callable[[str], str], templates: dict[str, str]) -> Iterator[Bench]:
    """One database for all cases, with work in every state that an action takes."""
    with psycopg.connect(server("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE fuzzed TEMPLATE {templates['a']}")
        with psycopg.connect(server("fuzzed"), autocommit=True) as connection:
            bench = Bench(server("fuzzed"), "a", connection, None)  # type: ignore[arg-type]
            long_ago = "now() - interval '5 hours'"
            many(bench, "audio_ready", 5)
            started = {"attempts": "1", "last_attempt_at": long_ago}
            give_rows(bench, many(bench, "aligned", 3, "s"), "translate", "running", **started)
            give_rows(bench, many(bench, "translated", 3, "f"), "separate", "failed", attempts="3")
            give_rows(bench, many(bench, "segmented", 3, "d"), "enhance", "completed")
            give_rows(bench, many(bench, "ready", 3, "o"), "clip", "pending")
            yield bench
        admin.execute("DROP DATABASE fuzzed WITH (FORCE)")


AGES = st.one_of(
    st.sampled_from(["1h", "7D", "90s", "36500d", "0s", "7", "-1d", "5\u017f", ""]), TEXTS
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
FLAGS = ("--sql", "--sources", "--averages", "--end-to-end", "--apply", "--ddl", "--probe")
READS = (
    *("backlog", "audit", "missing", "upcoming", "tasks", "orphans", "throughput", "durations"),
    *("flow", "eta"),
)
TAKEN = {  # by group of commands; sometimes an option of another group is given
    READS: ("--format", "--pipeline", "--task", "--limit", "--state", "--since", "--bucket"),
    tuple(ACTIONS): ("--task", "--older-than", "--limit", "--pipeline", "--error", "--confirm"),
    ("runs",): ("--format", "--prune"),
    ("trigger sql", "trigger verify", "views sql", "views verify"): ("--output", "--pipeline"),
    ("report", "resume", "stop", "undo", "grants reader", "doctor"): ("--pipeline", "--pause"),
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Commands that read, dry runs, and refused ones; nothing here confirms or acts at once."""
    group = draw(st.sampled_from([*TAKEN, READS, READS]))
    line = draw(st.sampled_from(group)).split()
    own = st.sampled_from(TAKEN[group])
    chosen = draw(st.lists(own | own | st.sampled_from([*TAKES, *FLAGS]), max_size=4))
    if "--apply" in chosen:  # to be refused: without anything that confirms
        chosen = [option for option in chosen if option != "--max-rows"]
    for option in chosen:
        line.append(option)
        if option not in FLAGS:
            line.append(draw(TAKES.get(option, WORDS)))
    if line[0] in ("resume", "stop", "undo"):
        line.append(draw(NUMBERS))
    elif line[0] == "grants":
        line.append(draw(WORDS))
    elif line[0] == "report":  # refused before it runs
        name = st.sampled_from(
            ["backlog_report", "explore", "nope", "", ".", "\x00", "karaoke.yaml"]
        )
        line += [draw(name), "-p", draw(WORDS), draw(WORDS), "-p", "no such parameter", "1"]
    if draw(st.integers(0, 5)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(WORDS))
    return line


ACTS = {"install", "uninstall", "demo", "lab"}


@settings(quick_cases, max_examples=120)
@given(line=command_lines())
@example(["reset", "--error", "\udc80"])
@example(["reset", "--error", "\x00"])
@example(["undo", "99999999999999999999"])
@example(["missing", "--limit", "99999999999999999999"])
@example(["backlog", "--pipeline", "\x00"])
@example(["missing", "--task", "\udc80"])
@example(["throughput", "--zone", "\x00"])
@example(["grants", "reader", "\x00"])
@example(["views", "sql", "--output", "x" * 300])
@example(["runs", "--prune", "5\u017f"])
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
