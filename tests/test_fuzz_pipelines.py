"""Random pipeline files: a pipeline or a clear error, and never SQL out of a name.

The shipped file's tree and lines are rearranged and filled with anything; what loads is compiled,
and its SQL compared with that of a pipeline of plain names.
"""

import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fuzzing import ANYTHING, HOSTILE, clear, quick_cases
from queue_insights import pipeline
from queue_insights.actions import ledger
from queue_insights.actions.definitions import ACTIONS, Parameters
from queue_insights.actions.statements import batch, selection, undo
from queue_insights.errors import InputError
from queue_insights.pipeline import Pipeline, stages
from queue_insights.reads import READS
from queue_insights.schema import Column, Schema, Table
from queue_insights.sql import Query, identifier, unescaped
from queue_insights.sql.frames import query

KARAOKE = (pipeline.shipped("params") / "pipelines" / "karaoke.yaml").read_text()
TREE: dict[str, Any] = yaml.safe_load(KARAOKE)
NOW = datetime(2026, 3, 2, tzinfo=UTC)


# --- pipeline files -----------------------------------------------------------------------------


def nodes(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of a tree, but for its root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from nodes(value, (*at, key))


PLACES = list(nodes(TREE))
PARTS = [reduce(getitem, place, TREE) for place in PLACES]


@st.composite
def rearranged(draw: st.DrawFn) -> dict[str, Any]:
    """karaoke.yaml with places removed, renamed, doubled, filled with what stands elsewhere."""
    tree = copy.deepcopy(TREE)
    for *above, key in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=5)):
        # An earlier change may have left no such place.
        with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
            holder = reduce(getitem, above, tree)
            match draw(st.sampled_from(["drop", "move", "wrap", "fill", "rename", "double"])):
                case "drop":
                    del holder[key]
                case "move":
                    holder[key] = copy.deepcopy(draw(st.sampled_from(PARTS)))
                case "wrap":
                    holder[key] = draw(st.sampled_from([[holder[key]], {"a": holder[key]}]))
                case "fill":
                    holder[key] = draw(HOSTILE | ANYTHING)
                case "rename":
                    holder[draw(HOSTILE)] = holder.pop(key)
                case "double":
                    holder.append(holder[key])
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
        assert re.fullmatch("[0-9a-f]{12}", found.fingerprint)
        stages = [found.stages.index(step.stage) for step in found.steps]
        assert stages == sorted(stages)
        for step in found.steps:
            found.previous(step)


@st.composite
def shuffled(draw: st.DrawFn) -> bytes:
    """The lines of karaoke.yaml cut, moved, doubled and marked."""
    lines = KARAOKE.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 4))):
        here, there = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match draw(st.sampled_from(["cut", "move", "double", "mark"])):
            case "cut" if len(lines) > 5:
                del lines[here]
            case "move":
                lines.insert(there, lines.pop(here))
            case "double":
                lines.insert(there, lines[here])
            case "mark":
                lines[here] = draw(st.sampled_from(MARKS) | st.text(max_size=3)) + lines[here]
    return "".join(lines).encode(errors="surrogatepass")


MARKS = [" ", "  ", "\t", "- ", "&a ", "*a", "!!x ", "? ", "---\n", "]"]
SIGNS = "abe:-[]{}&*!|>?#%@`,'\"\\ \n0~<=."


@settings(quick_cases, max_examples=450)
@given(shuffled() | st.binary(max_size=40) | st.text(SIGNS, max_size=40).map(str.encode))
@example(b"!!bool x")
@example(b"!!timestamp x")
@example(b"!!float ''")
@example(b"? {a: b}\n: c")
@example(b"<<: 5")
@example(b"a: 1e99999999999\nb: " + b"9" * 5000)
def test_any_bytes_are_a_pipeline_or_an_input_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    try:
        pipeline.load(file)
    except InputError as error:
        clear(error, str(file), lines=99)


# --- names in SQL -------------------------------------------------------------------------------

# What stands for a name or a value in SQL, and the names that need no quotes. A comment of ours has
# no name in it.
NAMED = re.compile(
    r"""(?<!\w)[Ee]'(?P<escaped>(?:[^'\\]|''|\\.)*)' | '(?P<string>(?:[^']|'')*)'
    | "(?P<quoted>(?:[^"]|"")+)" | \b(?P<plain>plain_name_\d+_)\b | --[^\n]*\n""",
    re.VERBOSE | re.DOTALL,
)


def taken_apart(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """SQL as Postgres reads it: what is none, and the names and strings between, unquoted."""
    outside, inside, at = [], [], 0
    for match in NAMED.finditer(text):
        outside += text[at : match.start()].split()
        outside.append("?")
        at, value = match.end(), match[str(match.lastgroup)] if match.lastgroup else ""
        if match.lastgroup in ("escaped", "string"):
            value = value.replace("''", "'")
            value = value.replace("\\\\", "\\") if match.lastgroup == "escaped" else value
            inside.append(("string", value))
        elif match.lastgroup:
            inside.append(("name", value.replace('""', '"')))
    return outside + text[at:].split(), inside


TRACK_ROLES, TASK_ROLES = (
    tuple(role for role in columns.model_fields if role not in ("table", "subject"))
    for columns in (stages.TrackColumns, stages.TaskColumns)
)
NUMBERS = ("id", "attempts", "max_attempts", "processing_duration_ms")  # of a task row
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
    tables["tracks"]["table"] = quote(schema, tracks)
    tables["tasks"]["table"] = quote(schema, tasks)
    return {
        **{"name": "fuzz", **tables, "stages": values[:3], "terminal": values[2:3]},
        "steps": [{"stage": values[i], "task": values[3 + i]} for i in range(2)],
    }


def schema_of(found: Pipeline, variant: Any) -> Schema:
    """The pipeline's tables as a database would have them that has all of its columns."""

    def table(columns: Any, roles: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
        schema, name = pipeline.split_table(columns.table)
        named = {role: getattr(columns, role) for role in roles}
        assume(len(set(named.values())) == len(named))  # no database tells two such columns apart
        times = dict.fromkeys((r for r in roles if r.endswith("_at")), "timestamp with time zone")
        of_role = times | dict.fromkeys(numbers, "int")
        kinds = {column: of_role.get(role, "text") for role, column in named.items()}
        columns_there = {column: Column(kind, kind, kind) for column, kind in kinds.items()}
        return Table(schema or "public", name, "r", columns_there, [], [], False, named)

    tasks = table(found.tasks, TASK_ROLES, NUMBERS)
    owner = tasks.roles["track_id" if variant == "a" else "subject_id"]
    tasks = replace(tasks, roles=tasks.roles | {"owner": owner})
    return Schema(found, table(found.tracks, TRACK_ROLES, ()), tasks, variant, {})


def of_read(name: str, **given: Any) -> Callable[[Schema], str]:
    return lambda schema: query(schema, NOW, name, **given).sql


def of_action(name: str, action: Any) -> dict[str, Callable[[Schema], str]]:
    """What plans it, a batch of it, and what undoes one."""
    rows = {"run": 1, "fence": 1, "first": 0, "beyond": 9}
    return {
        f"plan_{name}": lambda schema: (
            selection(
                *(schema, action, Parameters(error=schema.pipeline.stages[0])),
                *(schema.pipeline.steps, COUNTS),
            ).sql
        ),
        f"batch_{name}": lambda schema: (
            Query(batch(schema, action, Parameters(), schema.pipeline.steps[0]), rows).sql
        ),
        f"undo_{name}": lambda schema: Query(undo(schema, action), {"run": 1, "batch": 1}).sql,
    }


COUNTS = "plan_counts.sql"
GIVEN = {
    "tasks": {"state": "stuck"},
    **{"track": {"id": "plain value 0"}, "eta": {"history": timedelta(days=14)}},
    **{name: {"since": "1D", "bucket": "1D"} for name in ("throughput", "flow")},
}
QUERIES: dict[str, Callable[[Schema], str]] = {
    **{name: of_read(name, **GIVEN.get(name, {})) for name in READS},
    "eta_end_to_end": lambda schema: (
        Query(schema.render("eta_end_to_end.sql"), {"start": NOW, "zero": NOW}).sql
    ),
}
for name, action in ACTIONS.items():
    QUERIES |= of_action(name, action)
PLAIN_NAMES = [f"plain_name_{i}_" for i in range(NAMES)]
PLAIN_VALUES = [f"plain value {i}" for i in range(VALUES)]


@cache
def plain(query: str, variant: str) -> tuple[list[str], list[tuple[str, str]]]:
    found = loaded(tree_of(PLAIN_NAMES, PLAIN_VALUES))
    assert found
    return taken_apart(QUERIES[query](schema_of(found, variant)))


@st.composite
def naming(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Names that a database can have (none twice), and other values; in each a number, so that the
    SQL has none of them anyway."""
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
    outside, inside = taken_apart(QUERIES[query](schema_of(found, variant)))
    as_name = dict(zip(names, PLAIN_NAMES, strict=True))
    as_value = dict(zip(values, PLAIN_VALUES, strict=True)) | as_name
    back = {"name": as_name, "string": as_value}
    renamed = [(kind, back[kind].get(value, value)) for kind, value in inside]
    assert (outside, renamed) == plain(query, variant)


@settings(quick_cases, max_examples=5)
@given(names=naming(), variant=st.sampled_from("ab"))
def test_postgres_reads_the_names_as_names(
    server: Callable[[str], str], names: tuple[list[str], list[str]], variant: str
) -> None:
    found = loaded(tree_of(*names))
    assume(found is not None)
    made = schema_of(found, variant)
    with psycopg.connect(server("postgres")) as connection:
        connection.execute(ledger.ddl().encode())
        home = unescaped(identifier(made.tracks.schema))
        connection.execute(f"CREATE SCHEMA {home}".encode())
        for table in (made.tracks, made.tasks):
            columns = ", ".join(
                f"{identifier(c)} {column.exact}" for c, column in table.columns.items()
            )
            connection.execute(unescaped(f"CREATE TABLE {table.table} ({columns})").encode())
        keys = ", ".join(identifier(made.tasks.roles[role]) for role in made.unique_key)
        unique = f"CREATE UNIQUE INDEX ON {made.tasks.table} ({keys})"
        connection.execute(unescaped(unique).encode())
        for query in QUERIES.values():
            # Binary results take the protocol in which Postgres refuses a second statement.
            connection.cursor(binary=True).execute(f"EXPLAIN {query(made)}".encode())
        connection.rollback()
