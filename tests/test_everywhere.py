"""Everybody's database: whatever types, settings, heirs and times it has, each read, action with
its undo, trigger and view says and does what it does on the plain tables."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conftest import STAGE_OF, Bench, Url, database
from operating import operable
from queue_insights import doctor
from queue_insights.ddl import trigger, views
from queue_insights.reads import READS
from queue_insights.sql import Query
from queue_insights.sql.frames import query

EXTREMES = (
    *("infinity", "-infinity", "0001-01-01Z", "0044-03-15Z BC", "4713-01-01Z BC"),
    *("9999-12-31 23:59:59Z", "294276-12-31 23:59:59Z"),
)
# The columns that say status, stage and task: each may have another type.
SAYING = {"status": "audio_tasks", "task_type": "audio_tasks", "stage": "tracks"}
TYPES = ("text", "varchar(40)", "char(40)", "enum", "domain", "citext")
IDS = {"text": "{}", "uuid": "('00000000-0000-0000-0000-' || {})::uuid", "bigint": "{}::bigint"}
# With the default that every row gets.
EXTRA = {
    **{
        "text[]": """'[2:4]={a,NULL,"x \\" y"}'""",
        "int[][]": "'{{1,2},{3,4}}'",
        "bytea": "'\\x00ff'",
    },
    **{"tstzrange": "'[2020-01-01 12:00+09,infinity)'", "int4multirange": "'{[1,5),[7,)}'"},
    **{"jsonb": "'null'", "json": """'{"a":  1, "a": 2}'""", "numeric": "'NaN'", "money": "3.5"},
    **{"float8": "0.1::float8 + 0.2::float8", "float4": "'-infinity'", "bit(3)": "B'101'"},
    **{
        "interval": "'1 mon -3 days 00:00:01.5'",
        "timestamp": "'0044-01-01 BC'",
        "date": "'infinity'",
    },
    **{"time": "'24:00'", "inet": "'10.0.0.1/8'", "char(5)": "'ab'", "mood": "'so so'"},
    **{"mood[]": "'{good,NULL}'", "odd": "3", "odd_json": "'null'", "pair": """'(1,"a,b")'"""},
}
SETTINGS = (
    *("DateStyle = 'German'", "DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Tokyo'"),
    *("TimeZone = 'America/Los_Angeles'", "IntervalStyle = 'sql_standard'", "array_nulls = off"),
    *("bytea_output = 'escape'", "extra_float_digits = -5", "standard_conforming_strings = off"),
    *("default_transaction_isolation = 'serializable'", "search_path = ''", "xmloption = document"),
    *("quote_all_identifiers = on", "transform_null_equals = on", "client_encoding = 'LATIN1'"),
)


@dataclass(frozen=True)
class Kind:
    """One kind of database."""

    types: dict[str, str]
    track_id: str
    task_id: str
    extra: frozenset[str]
    settings: frozenset[str]
    inherited: bool
    updated_without_zone: bool


KINDS = st.builds(
    Kind,
    types=st.fixed_dictionaries({column: st.sampled_from(TYPES) for column in SAYING}),
    track_id=st.sampled_from(list(IDS)),
    task_id=st.sampled_from(["integer", "bigint", "uuid", "identity"]),
    extra=st.frozensets(st.sampled_from(list(EXTRA)), min_size=3, max_size=12),
    settings=st.frozensets(st.sampled_from(SETTINGS), min_size=2, max_size=8),
    inherited=st.booleans(),
    updated_without_zone=st.booleans(),
)


def fill(bench: Bench) -> None:
    """Tracks in each state, orphans, a week of completions, extreme times in every column, and
    clocks ahead. Ids are twelve digits, so that texts and numbers are in the same order."""
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER USER")
    number = iter(range(10**11, 10**12))

    def add(
        stage: str, task: str = "", status: str = "pending", updated: str = "", **row: str
    ) -> None:
        track = bench.track(str(next(number)), stage, "Ü 日本 %s :x")
        at = updated or "now() - interval '9 hours'"
        bench.sql(f"UPDATE tracks SET updated_at = {at} WHERE spotify_track_id = %s", track)
        if task:
            values = {name: psycopg.sql.SQL(value) for name, value in row.items()}
            bench.task(track, task, status, **values)

    ago, ahead = "now() - interval '{}'".format, "now() + interval '{}'".format
    for task, stage in STAGE_OF.items():
        add(stage)
        add(stage, task, created_at=ago("2 hours"))
        add(stage, task, "failed", attempts="1", created_at=ago("3 hours"))
        add(stage, task, "failed", attempts="3", error_message="'it''s \\ so'")
        add(stage, task, "running", attempts="1", last_attempt_at=ago("5 hours"))
        add("ready", task, "failed", created_at=ago("4 days"))
        add("failed", task, created_at=ago("4 days"), metadata="'null'")
        done = {"created_at": ago("3 days 1 hour"), "last_attempt_at": ago("74 hours")}
        add("ready", task, "completed", completed_at=ago("3 days"), **done)
    for time in EXTREMES:
        add("aligned", updated=f"'{time}'")
        add("aligned", "translate", created_at=f"'{time}'")
        add("aligned", "translate", "failed", attempts="1", next_retry_at=f"'{time}'")
        add("aligned", "translate", "running", last_attempt_at=f"'{time}'")
        add("ready", "translate", "completed", completed_at=f"'{time}'", created_at=f"'{time}'")
    add("ready", "align", "completed", completed_at=ahead("3 hours"), created_at=ahead("2 hours"))
    add("audio_ready", "align", created_at=ahead("5 hours"))
    add("audio_ready", "align", "running", last_attempt_at=ahead("2 hours"))
    bench.sql("ALTER TABLE tracks ENABLE TRIGGER USER")


def alter(bench: Bench, kind: Kind) -> None:
    """Make the plain tables this *kind* of database."""
    for setting in kind.settings:
        bench.sql(f"ALTER DATABASE {bench.connection.info.dbname} SET {setting}")
    bench.sql("DROP VIEW task_summary, audio_progress")
    found = bench.sql(
        "SELECT indexdef FROM pg_indexes WHERE indexname LIKE '%%stat%%idx' OR indexname LIKE '%%stage%%idx'"
    )
    bench.sql("DROP INDEX tracks_stage_idx, audio_tasks_task_type_status_idx")
    for column, table in SAYING.items():
        retype(bench, table, column, kind.types[column])
    for (index,) in found:
        bench.sql(
            re.sub(
                r"\((\w+) (=|<>) (ANY|ALL) \(ARRAY\[(.*)\]\)\)",
                lambda m: (
                    f"({m[1]} {'' if m[2] == '=' else 'NOT '}IN ({m[4].replace('::text', '')}))"
                ),
                index,
            )
        )
    ids(bench, kind)
    bench.sql(
        "CREATE TYPE mood AS ENUM ('good', 'so so'); CREATE DOMAIN odd AS int CHECK (VALUE %% 2 = 1);"
        "CREATE DOMAIN odd_json AS jsonb; CREATE TYPE pair AS (a int, b text)".replace("%%", "%")
    )
    for number, type in enumerate(sorted(kind.extra)):
        bench.sql(f"ALTER TABLE audio_tasks ADD extra{number} {type} DEFAULT {EXTRA[type]}")
    bench.sql("ALTER TABLE audio_tasks ADD twice int GENERATED ALWAYS AS (attempts * 2) STORED")
    if kind.updated_without_zone:
        bench.sql(
            "ALTER TABLE tracks ALTER updated_at DROP DEFAULT, ALTER updated_at TYPE timestamp "
            "USING updated_at AT TIME ZONE 'UTC', ALTER updated_at SET DEFAULT now() AT TIME ZONE 'UTC'"
        )
    if kind.inherited:
        for table in ("tracks", "audio_tasks"):
            bench.sql(f"CREATE TABLE old_{table} () INHERITS ({table})")
            columns = [
                f'"{name}"'
                for (name,) in bench.sql(
                    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
                    "AND attgenerated = ''",
                    table,
                )
            ]
            bench.sql(
                f"INSERT INTO old_{table} ({', '.join(columns)}) SELECT {', '.join(columns)} FROM ONLY {table}"
            )


def retype(bench: Bench, table: str, column: str, type: str) -> None:
    constraint = f"{table}_{column}_check"
    ((check,),) = bench.sql(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", constraint
    )
    labels = ", ".join(f"'{label}'" for label in re.findall("'(.*?)'", check))
    if type == "citext" and not bench.sql(
        "SELECT 1 FROM pg_available_extensions WHERE name = 'citext'"
    ):
        type = "char(40)"
    ((default,),) = bench.sql(
        "SELECT column_default FROM information_schema.columns WHERE table_name = %s AND column_name = %s",
        table,
        column,
    )
    bench.sql("CREATE EXTENSION IF NOT EXISTS citext" if type == "citext" else "SELECT 1")
    if type in ("enum", "domain"):
        bench.sql(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
        bench.sql(f"CREATE TYPE {column}_enum AS ENUM ({labels})")
        of = f"{column}_enum" if type == "enum" else f"text CHECK (VALUE IN ({labels}))"
        bench.sql(f"CREATE DOMAIN {column}_domain AS {of}")
        type = f"{column}_enum" if type == "enum" else f"{column}_domain"
    bench.sql(f"ALTER TABLE {table} ALTER {column} DROP DEFAULT")
    bench.sql(f"ALTER TABLE {table} ALTER {column} TYPE {type} USING {column}::text::{type}")
    if default:
        bench.sql(f"ALTER TABLE {table} ALTER {column} SET DEFAULT {default.partition('::')[0]}")


def ids(bench: Bench, kind: Kind) -> None:
    by_subject = bench.variant == "b"
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_fkey")
    if by_subject:
        bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_subject_check")
    for table in ("tracks", "audio_tasks"):
        made = IDS[kind.track_id].format("spotify_track_id")
        bench.sql(f"ALTER TABLE {table} ALTER spotify_track_id TYPE {kind.track_id} USING {made}")
    bench.sql(
        "ALTER TABLE audio_tasks ADD CONSTRAINT audio_tasks_spotify_track_id_fkey "
        "FOREIGN KEY (spotify_track_id) REFERENCES tracks ON DELETE CASCADE"
    )
    if by_subject:
        bench.sql("UPDATE audio_tasks SET subject_id = spotify_track_id::text")
        bench.sql("ALTER TABLE audio_tasks ADD CHECK (subject_id = spotify_track_id::text)")
    if kind.task_id == "identity":
        bench.sql(
            "ALTER TABLE audio_tasks ALTER id DROP DEFAULT, ALTER id ADD GENERATED ALWAYS AS IDENTITY (START 1000)"
        )
    elif kind.task_id == "uuid":
        made = IDS["uuid"].format("lpad(id::text, 12, '0')")
        bench.sql(
            f"ALTER TABLE audio_tasks ALTER id DROP DEFAULT, ALTER id TYPE uuid USING {made}, "
            "ALTER id SET DEFAULT gen_random_uuid()"
        )
    else:
        bench.sql(
            f"ALTER TABLE audio_tasks ALTER id TYPE {kind.task_id}, ALTER attempts TYPE smallint"
        )


def rows(bench: Bench) -> list[tuple[Any, ...]]:
    """Every task row, each column as text, but for updated_at, which a trigger sets."""
    found = bench.sql(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'public.audio_tasks'::regclass "
        "AND attnum > 0 AND attname <> 'updated_at' ORDER BY attname"
    )
    columns = ", ".join(f'"{name}"::text' for (name,) in found)
    return sorted(map(repr, bench.sql(f"SELECT {columns} FROM ONLY public.audio_tasks")))


def number(id: Any) -> int:
    """The number that stands in a track's id, of whatever type."""
    return int(str(id).replace("-", "")[-12:])


PLAIN = ("stage", "task_type", "state", "status", "attempts", "title", "arrived_at", "verdict")
ACTS: tuple[tuple[str, dict[str, str]], ...] = (
    *((name, {}) for name in ("backfill", "reset", "retry", "requeue", "prune")),
    ("prune", {"status": "failed"}),
)


def compared(frame: pd.DataFrame) -> list[Any]:
    """What must be the same on every kind of database, at any moment."""
    if "bucket" in frame:
        return (
            frame.groupby("task_type")
            .sum(numeric_only=True)
            .drop(columns=["depth", "waiting"], errors="ignore")
            .to_dict("index")
        )
    counts = [name for name, type in frame.dtypes.items() if str(type) == "int64"]
    kept = frame[[name for name in frame if name in (*PLAIN, *counts) and name != "id"]].astype(str)
    if "spotify_track_id" in frame:
        kept = kept.assign(track=[number(id) for id in frame.spotify_track_id])
    return kept.to_dict("records")


def observed(bench: Bench) -> dict[str, Any]:
    """What the library says and does here; whatever it does is undone exactly."""
    queue, seen = operable(bench.url), {}
    with queue.snapshot() as moment:
        for read in READS:
            frame = getattr(queue, read)(**({"id": first(bench)} if read == "track" else {}))
            seen[read] = compared(frame)
            ages = frame[[name for name in frame if name.endswith("_seconds")]]
            assert not (ages < 0).any(axis=None), read
        queue.eta_end_to_end()
        moment.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        asked = query(queue.schema, moment.as_of, "backlog")
        plan = Query(f"EXPLAIN {asked.text}", asked.values).rows(moment.connection).scalars()
        seen["indexes"] = {
            name for line in plan for name in re.findall(r"using (\w+)|on (\w+idx)", line)
        }
    for name, narrow in ACTS:
        before = rows(bench)
        plan = operable(bench.url).plan(name, **narrow)
        plan.preview()
        run = plan.apply(confirm=plan.token)
        after = "SELECT spotify_track_id::text, task_type::text, status::text, attempts, created_at::text FROM ONLY public.audio_tasks"
        left = sorted(
            (number(row[0]), *(str(v).strip() for v in row[1:])) for row in bench.sql(after)
        )
        seen[f"{name} {narrow}"] = (run.row["rows_done"], sorted(run.dropped().reason), left)
        run.undo()
        assert rows(bench) == before and run.row["rows_kept"] == 0, name
    trigger.install(queue)
    assert trigger.verify(queue, prove=True) == []
    trigger.uninstall(queue)
    views.install(queue)
    assert views.verify(queue) == []
    bench.sql("SET TimeZone = 'Asia/Tokyo'")
    arrived = "SELECT count(*), max(arrived_at) FILTER (WHERE arrived_at < now())::timestamptz(0) FROM queue_insights.pending_tasks"
    seen["view"] = bench.sql(arrived)
    bench.sql("SET TimeZone = 'UTC'")
    views.uninstall(queue)
    seen["doctor"] = [finding.text for finding in doctor.examine(queue) if finding.level == "fix"]
    return seen


def first(bench: Bench) -> str:
    ((id,),) = bench.sql(
        "SELECT min(spotify_track_id::text) FROM ONLY public.tracks WHERE stage::text = 'audio_ready'"
    )
    return str(id)


class Plain:
    """The plain tables: how to clone them, and what is seen there."""

    def __init__(self, clone: Callable[[], Bench]):
        self.clone, self.seen = clone, observed(clone())


@pytest.fixture(scope="module", params=["a", "b"])
def plain(
    request: pytest.FixtureRequest, server: Url, templates: dict[str, str]
) -> Iterator[Plain]:
    with ExitStack() as ends:
        base = ends.enter_context(database(server, templates[request.param]))

        def clone(
            template: str = base.rpartition("/")[2].partition("?")[0], url: str = ""
        ) -> Bench:
            found = url or ends.enter_context(database(server, template))
            connection = ends.enter_context(closing(psycopg.connect(found, autocommit=True)))
            return Bench(found, request.param, connection, operable(found))

        bench = clone(url=base)
        fill(bench)
        bench.connection.close()
        yield Plain(clone)


@given(kind=KINDS)
@settings(max_examples=4, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_every_kind_of_database_gives_the_same_answers_and_exact_undos(
    plain: Plain, kind: Kind
) -> None:
    bench = plain.clone()
    alter(bench, kind)
    for part, seen in observed(bench).items():
        assert seen == plain.seen[part], part
