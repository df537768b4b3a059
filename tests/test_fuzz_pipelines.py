"""Random pipeline files: a pipeline or a clear error, and never SQL out of a name.

What random values and bytes do to a pipeline file is in test_pipeline; here its tree and its lines
are rearranged, and what loads is compiled and taken apart again token by token.
"""

import copy
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from conftest import database
from fuzzing import HOSTILE, clear, quick_cases
from queue_insights import eta, flow, pipeline, queries, resources
from queue_insights.actions.definitions import ACTIONS, Parameters, selection
from queue_insights.errors import InputError
from queue_insights.pipeline import Pipeline
from queue_insights.schema import Schema

KARAOKE = (resources.folder("params") / "pipelines" / "karaoke.yaml").read_text()
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


@pytest.fixture(scope="module")
def empty(server: Callable[[str], str]) -> Iterator[str]:
    """The URL of one database for all cases."""
    with database(server) as url:
        yield url


@settings(quick_cases, max_examples=5)
@given(names=naming(), variant=st.sampled_from("ab"))
def test_postgres_reads_the_names_as_names(
    empty: str, names: tuple[list[str], list[str]], variant: str
) -> None:
    found = loaded(tree_of(*names))
    assume(found is not None)
    assert found
    made = schema_of(found, variant)
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(empty))
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
