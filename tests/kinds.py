"""Kinds of databases: tables with other types, settings, heirs and times than the plain ones."""

import re
from typing import Any

from hypothesis import strategies as st
from psycopg import sql

from conftest import STAGE_OF, Bench

EXTREMES = (
    *("infinity", "-infinity", "0001-01-01Z", "0044-03-15Z BC", "4713-01-01Z BC"),
    *("9999-12-31 23:59:59Z", "294276-12-31 23:59:59Z"),
)
# The columns that say status, stage and task: each may have another type.
SAYING = {"status": "audio_tasks", "task_type": "audio_tasks", "stage": "tracks"}
TYPES = ("text", "varchar(40)", "char(40)", "enum", "domain", "citext")
AS_UUID = "('00000000-0000-0000-0000-' || lpad({}::text, 12, '0'))::uuid"
IDS = {"text": "{}", "uuid": AS_UUID, "bigint": "{}::bigint"}
TASK_IDS = {
    **{"integer": "SET DEFAULT 7", "bigint": "TYPE bigint", "uuid": f"TYPE uuid USING {AS_UUID}"},
    "identity": "ADD GENERATED ALWAYS AS IDENTITY (START 1000)",
}
# With the default that every row gets.
EXTRA = {
    **{"text[]": """'[2:4]={a,NULL,"x \\" y"}'""", "int[][]": "'{{1,2},{3,4}}'"},
    **{"tstzrange": "'[2020-01-01 12:00+09,infinity)'", "int4multirange": "'{[1,5),[7,)}'"},
    **{"jsonb": "'null'", "json": """'{"a":  1, "a": 2}'""", "numeric": "'NaN'", "money": "3.5"},
    **{"float8": "0.1::float8 + 0.2::float8", "float4": "'-infinity'", "bit(3)": "B'101'"},
    **{"interval": "'1 mon -3 days 00:00:01.5'", "date": "'infinity'", "bytea": "'\\x00ff'"},
    **{"time": "'24:00'", "inet": "'10.0.0.1/8'", "char(5)": "'ab'", "mood": "'so so'"},
    **{"mood[]": "'{good,NULL}'", "odd": "3", "odd_json": "'null'", "pair": """'(1,"a,b")'"""},
    "timestamp": "'0044-01-01 BC'",
}
MADE = """
    CREATE TYPE mood AS ENUM ('good', 'so so');
    CREATE DOMAIN odd AS int CHECK (VALUE <> 2);
    CREATE DOMAIN odd_json AS jsonb;
    CREATE TYPE pair AS (a int, b text);
    ALTER TABLE audio_tasks ADD twice int GENERATED ALWAYS AS (attempts * 2) STORED;
"""
SETTINGS = (
    *("DateStyle = 'German'", "DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Tokyo'"),
    *("TimeZone = 'America/Los_Angeles'", "IntervalStyle = 'sql_standard'", "array_nulls = off"),
    *("bytea_output = 'escape'", "extra_float_digits = -5", "standard_conforming_strings = off"),
    *("default_transaction_isolation = 'serializable'", "search_path = ''", "xmloption = document"),
    *("quote_all_identifiers = on", "transform_null_equals = on", "client_encoding = 'LATIN1'"),
)
NO_ZONE = """
    ALTER TABLE tracks ALTER updated_at DROP DEFAULT,
        ALTER updated_at TYPE timestamp USING updated_at AT TIME ZONE 'UTC';
"""
Kind = dict[str, Any]
KINDS = st.fixed_dictionaries(
    {
        "types": st.fixed_dictionaries({column: st.sampled_from(TYPES) for column in SAYING}),
        "track_id": st.sampled_from(list(IDS)),
        "task_id": st.sampled_from(list(TASK_IDS)),
        "extra": st.frozensets(st.sampled_from(list(EXTRA)), min_size=3, max_size=12),
        "settings": st.frozensets(st.sampled_from(SETTINGS), min_size=2, max_size=8),
        "inherited": st.booleans(),
        "no_zone": st.booleans(),
    }
)


def fill(bench: Bench) -> None:
    """Tracks in each state, orphans, a week of completions, extreme times in every column, and
    clocks ahead. Ids are twelve digits, so that texts and numbers are in the same order."""
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER USER")
    ago, ahead = "now() - interval '{}'".format, "now() + interval '{}'".format
    numbers = iter(range(10**11, 10**12))

    def add(stage: str, task: str = "", status: str = "pending", **row: str) -> None:
        track = bench.track(str(next(numbers)), stage, "Ü 日本 %s :x")
        updated = row.pop("updated", ago("9 hours"))
        bench.sql(f"UPDATE tracks SET updated_at = {updated} WHERE spotify_track_id = %s", track)
        if task:
            bench.task(track, task, status, **{name: sql.SQL(row[name]) for name in row})

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
        add(stage, task, "completed", completed_at=ago("3 days"), **done)
    for time in [f"'{each}'" for each in EXTREMES]:
        add("aligned", updated=time)
        add("aligned", "translate", created_at=time)
        add("aligned", "translate", "failed", attempts="1", next_retry_at=time)
        add("aligned", "translate", "running", last_attempt_at=time)
        add("ready", "translate", "completed", completed_at=time, created_at=time)
    add("ready", "align", "completed", completed_at=ahead("3 hours"), created_at=ahead("2 hours"))
    add("audio_ready", "align", created_at=ahead("5 hours"))
    add("audio_ready", "align", "running", last_attempt_at=ahead("2 hours"))
    bench.sql("ALTER TABLE tracks ENABLE TRIGGER USER")


def alter(bench: Bench, kind: Kind) -> None:
    """Make the plain tables this *kind* of database."""
    for setting in kind["settings"]:
        bench.sql(f"ALTER DATABASE {bench.connection.info.dbname} SET {setting}")
    bench.sql("DROP VIEW task_summary, audio_progress")
    bench.sql("DROP INDEX tracks_stage_idx, audio_tasks_task_type_status_idx")
    for column, table in SAYING.items():
        retype(bench, table, column, kind["types"][column])
    bench.sql("CREATE INDEX tracks_stage_idx ON tracks (stage) WHERE stage NOT IN ('failed')")
    bench.sql(
        "CREATE INDEX audio_tasks_task_type_status_idx ON audio_tasks (task_type, status) "
        "WHERE status IN ('pending', 'failed')"
    )
    dropped = "fkey" if bench.variant == "a" else "fkey, DROP CONSTRAINT audio_tasks_subject_check"
    bench.sql(f"ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_{dropped}")
    for table in ("tracks", "audio_tasks"):
        made = IDS[kind["track_id"]].format("spotify_track_id")
        retyped = f"TYPE {kind['track_id']} USING {made}"
        bench.sql(f"ALTER TABLE {table} ALTER spotify_track_id {retyped}")
    bench.sql("ALTER TABLE audio_tasks ADD FOREIGN KEY (spotify_track_id) REFERENCES tracks")
    if bench.variant == "b":
        bench.sql("UPDATE audio_tasks SET subject_id = spotify_track_id::text")
    bench.sql("ALTER TABLE audio_tasks ALTER id DROP DEFAULT")
    bench.sql(f"ALTER TABLE audio_tasks ALTER id {TASK_IDS[kind['task_id']].format('id')}")
    numbers = {"uuid": "gen_random_uuid()", "identity": ""}
    if default := numbers.get(kind["task_id"], "nextval('audio_tasks_id_seq')"):
        bench.sql(f"ALTER TABLE audio_tasks ALTER id SET DEFAULT {default}")
    bench.sql(MADE + (NO_ZONE if kind["no_zone"] else ""))
    for number, type in enumerate(sorted(kind["extra"])):
        bench.sql(f"ALTER TABLE audio_tasks ADD extra{number} {type} DEFAULT {EXTRA[type]}")
        if number % 2:  # what undo puts back is not what a new row would have
            bench.sql(f"ALTER TABLE audio_tasks ALTER extra{number} DROP DEFAULT")
    for table in ("tracks", "audio_tasks") if kind["inherited"] else ():
        bench.sql(f"CREATE TABLE old_{table} () INHERITS ({table})")
        columns = ", ".join(columns_of(bench, table, "AND attgenerated = ''"))
        bench.sql(f"INSERT INTO old_{table} ({columns}) SELECT {columns} FROM ONLY {table}")


def retype(bench: Bench, table: str, column: str, type: str) -> None:
    check = f"FROM pg_constraint WHERE conname = '{table}_{column}_check'"
    ((found,),) = bench.sql(f"SELECT pg_get_constraintdef(oid) {check}")
    labels = ", ".join(f"'{label}'" for label in re.findall("'(.*?)'", found))
    if type == "citext":
        known = bench.sql("SELECT FROM pg_available_extensions WHERE name = 'citext'")
        bench.sql("CREATE EXTENSION IF NOT EXISTS citext" if known else "SELECT")
        type = "citext" if known else "char(40)"
    if type in ("enum", "domain"):
        bench.sql(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_check")
        made = f"text CHECK (VALUE IN ({labels}))" if type == "domain" else f"ENUM ({labels})"
        named = f"{'TYPE' if type == 'enum' else 'DOMAIN'} {column}_{type}"
        bench.sql(f"CREATE {named} AS {made}")
        type = f"{column}_{type}"
    bench.sql(f"ALTER TABLE {table} ALTER {column} DROP DEFAULT")
    bench.sql(f"ALTER TABLE {table} ALTER {column} TYPE {type} USING {column}::text::{type}")
    bench.sql(f"ALTER TABLE {table} ALTER {column} SET DEFAULT 'pending'" * (column != "task_type"))


def columns_of(bench: Bench, table: str, but: str) -> list[str]:
    of = f"attrelid = 'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped {but}"
    return [name for (name,) in bench.sql(f"SELECT attname FROM pg_attribute WHERE {of}")]


def rows(bench: Bench) -> list[Any]:
    """Every task row, each column as text, but for updated_at, which a trigger sets."""
    names = columns_of(bench, "audio_tasks", "AND attname <> 'updated_at'")
    columns = ", ".join(f"{name}::text" for name in names)
    return sorted(map(repr, bench.sql(f"SELECT {columns} FROM ONLY public.audio_tasks")))
