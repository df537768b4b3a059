"""Everybody's database: whatever types, settings, heirs and times it has, each read, action with
its undo, trigger and view says and does what it does on the plain tables."""

import contextlib
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from hypothesis import Phase, given, settings

from conftest import Bench, Fresh, Url, database
from examining import examine, fixes, one
from fuzzing import cases
from kinds import KINDS, Kind, alter, fill, rows
from operating import command, edited, many, operable
from queue_insights import demo, doctor
from queue_insights.ddl import trigger, views
from queue_insights.errors import DatabaseError, InputError
from queue_insights.reads import READS
from queue_insights.sql import Query
from queue_insights.sql.frames import query

ACTS: tuple[tuple[str, dict[str, str]], ...] = (
    *((name, {}) for name in ("backfill", "reset", "retry", "requeue", "prune")),
    ("prune", {"status": "failed"}),
)
INDEXES = {"tracks_stage_idx", "audio_tasks_task_type_status_idx"}
PLAIN = ("stage", "task_type", "state", "status", "attempts", "title", "arrived_at", "verdict")


def number(id: Any) -> int:
    """The number that stands in a track's id, of whatever type."""
    return int(str(id).replace("-", "")[-12:])


def compared(frame: pd.DataFrame) -> Any:
    """What must be the same on every kind of database, at any moment."""
    if "bucket" in frame:  # what was there when the first began depends on when that was
        sums = frame.drop(columns=["depth", "waiting"], errors="ignore").groupby("task_type")
        return sums.sum(numeric_only=True).to_dict("index")
    counts = [name for name, type in frame.dtypes.items() if str(type) == "int64" and name != "id"]
    kept = frame[[name for name in frame if name in (*PLAIN, *counts)]].astype(str)
    if "spotify_track_id" in frame:
        kept = kept.assign(track=[number(id) for id in frame["spotify_track_id"]])
    return kept.to_dict("records")


def observed(bench: Bench) -> dict[str, Any]:
    """What the library says and does here; whatever it does is undone exactly."""
    queue, seen = operable(bench.url), {}
    with queue.snapshot() as moment:
        first = str(queue.tasks(task="align", limit=1).iloc[0, 0])
        for read in READS:
            frame = getattr(queue, read)(**({"id": first} if read == "track" else {}))
            seen[read] = compared(frame)
            ages = frame[[name for name in frame if name.endswith("_seconds")]]
            assert not ((ages < 0) | (ages > 90 * 86400)).any(axis=None), read
        queue.audit(sources=True), queue.eta_end_to_end()
        moment.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        asked = query(queue.schema, moment.as_of, "backlog")
        plan = Query(f"EXPLAIN {asked.text}", asked.values).rows(moment.connection).scalars()
        used = {name for line in plan for name in re.findall(r"(?:using|on) (\w+)", line)}
        seen["indexes"] = used & INDEXES  # of what else it uses Postgres may think anew
    after = "spotify_track_id::text, task_type::text, status::text, attempts, created_at::text"
    for name, narrow in ACTS:
        before, plan = rows(bench), operable(bench.url).plan(name, **narrow)
        plan.preview()
        run = plan.apply(confirm=plan.token)
        left = bench.sql(f"SELECT {after} FROM ONLY public.audio_tasks")
        found = sorted((number(id), *(str(part).strip() for part in rest)) for id, *rest in left)
        seen[f"{name} {narrow}"] = (run.row["rows_done"], sorted(run.dropped().reason), found)
        run.undo()
        assert (rows(bench), run.row["rows_kept"]) == (before, 0), name
    trigger.install(queue)
    assert trigger.verify(queue, prove=True) == []
    views.install(queue)
    assert views.verify(queue) == []
    bench.sql("SET TimeZone = 'Asia/Tokyo'")
    view = "FROM queue_insights.pending_tasks WHERE isfinite(arrived_at) AND arrived_at < now()"
    seen["view"] = bench.sql(f"SELECT count(*), max(arrived_at)::timestamptz(0)::text {view}")
    bench.sql("SET TimeZone = 'UTC'")
    assert not [finding for finding in doctor.examine(queue) if finding.level == "fix"]
    return seen


@pytest.fixture(scope="module", params=["a", "b"])
def plain(
    request: pytest.FixtureRequest, server: Url, templates: dict[str, str]
) -> Iterator[tuple[Callable[[], Bench], dict[str, Any]]]:
    """How to clone the plain tables, and what is seen there."""
    with ExitStack() as ends:

        def clone(template: str) -> Bench:
            url = ends.enter_context(database(server, template))
            connection = ends.enter_context(closing(psycopg.connect(url, autocommit=True)))
            return Bench(url, request.param, connection, operable(url))

        base = clone(templates[request.param])
        fill(base)
        name = base.connection.info.dbname
        base.connection.close()
        yield lambda: clone(name), observed(clone(name))


@pytest.mark.proof
@given(kind=KINDS)
@settings(cases(1), phases=[Phase.generate])
def test_every_kind_of_database_has_the_same_answers_and_undos(plain: Any, kind: Kind) -> None:
    clone, expected = plain
    bench = clone()
    alter(bench, kind)
    for part, seen in observed(bench).items():
        assert seen == expected[part], part


@pytest.fixture
def bench(fresh: Fresh) -> Bench:
    """Some tracks without a row, and an orphan."""
    bench = fresh("a")
    many(bench, "audio_ready", 3)
    bench.task(bench.track("orphan", "ready"), "align")
    return bench


KEY = "(spotify_track_id, task_type)"
NO_KEY = {
    "not valid": f"CREATE UNIQUE INDEX CONCURRENTLY extra ON audio_tasks {KEY}",
    "deferrable": f"ALTER TABLE audio_tasks ADD UNIQUE {KEY} DEFERRABLE",
    "covers some rows only": f"CREATE UNIQUE INDEX extra ON audio_tasks {KEY} WHERE id > 0",
}


@pytest.mark.parametrize("fault", NO_KEY)
def test_a_key_that_is_none_is_refused_and_doctor_says_why(bench: Bench, fault: str) -> None:
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_task_type_key")
    if fault == "not valid":
        bench.task("orphan", "align")
    with contextlib.suppress(psycopg.errors.UniqueViolation):
        bench.sql(NO_KEY[fault])
    with pytest.raises(InputError, match=f"has no unique key on .*{fault}"):
        bench.queue.backlog()
    one(fixes(examine(bench.url)), fault)


def test_policies_that_would_hide_rows_are_an_error_and_what_to_ask_for(bench: Bench) -> None:
    role = f"reader_{bench.connection.info.dbname}"
    bench.sql(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON tracks, audio_tasks TO {role}")
    url = bench.url.replace("postgres@", f"{role}@", 1)
    try:
        for table in ("tracks", "audio_tasks"):
            bench.sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            with pytest.raises(DatabaseError, match=f'"{table}".*BYPASSRLS.*owns the table'):
                operable(url).backlog()
            one(fixes(examine(url)), f"hide rows of public.{table} from {role}")
            bench.sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    finally:
        bench.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_texts_of_any_encoding_are_texts_or_one_line(server: Url, encoding: str) -> None:
    options = f"ENCODING '{encoding}' LOCALE 'C'"
    with (
        database(server, "template0", options) as url,
        psycopg.connect(url, autocommit=True, client_encoding="utf8") as connection,
    ):
        demo.create_schema(connection, "a")
        bench = Bench(url, "a", connection, operable(url))
        bench.track("é", "audio_ready", "Été")
        assert bench.queue.missing().title.tolist() == ["Été"]
        assert bench.queue.track("é").stage.tolist() == ["audio_ready"]
        assert bench.queue.plan_backfill().apply(max_rows=1).undo().row["rows_undone"] == 1
        if encoding == "SQL_ASCII":
            bench.sql("UPDATE tracks SET title = E'\\xe9'")
            with pytest.raises(DatabaseError, match="is not in UTF-8"):
                bench.queue.missing()


def test_a_time_to_be_written_must_be_one_and_those_not_shown_are_counted(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER USER")
    bench.sql("UPDATE tracks SET updated_at = 'infinity' WHERE spotify_track_id = 't1'")
    assert bench.queue.missing().arrived_at.isna().sum() == 1
    assert caplog.messages == ["1 times, such as infinity or 44 BC, are shown as missing"]
    run = bench.queue.plan_backfill().apply(max_rows=3)
    assert run.dropped()[["id", "reason"]].values.tolist() == [
        ["t1", "its arrival, infinity, is no time that a row should have"]
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is full")
@pytest.mark.parametrize(
    ("command", "where"),
    [("backlog", ">/dev/full"), ("backfill --apply --max-rows 9", ">/dev/full"), ("doctor", ">&-")],
)
def test_an_output_that_cannot_be_written_is_one_line(
    bench: Bench, command: str, where: str
) -> None:
    shell = f"exec '{sys.executable}' -m queue_insights {command} {where}"
    environment = {**os.environ, "QUEUE_INSIGHTS_URL": bench.url}
    done = subprocess.run(["sh", "-c", shell], env=environment, stderr=-1, text=True, timeout=300)
    said = [line for line in done.stderr.splitlines() if "rows/s" not in line]
    assert (done.returncode, len(said)) == (1, 1), done.stderr
    applied = bench.sql("SELECT count(*) FROM audio_tasks") == [(4,)]
    assert applied == ("run 1: backfill finished: 3 rows done" in said[0])


def test_what_is_no_file_or_folder_is_refused_and_left_as_it_is(
    bench: Bench, tmp_path: Path
) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    for arguments in (
        *(["trigger", "sql", "--output", pipe], ["report", "explore", "--output", "s3://b/x"]),
        *(["report", "explore", "--metrics", pipe], ["report", "explore", "--output", pipe]),
    ):
        done = command(bench.url, *arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), arguments
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    assert not Path("s3:").exists()


def test_two_roles_may_name_one_column(bench: Bench, tmp_path: Path) -> None:
    pairs = ("updated_at: created_at", "next_retry_at: last_attempt_at", "max_attempts: attempts")
    queue = operable(bench.url, edited(tmp_path, "tasks:", "\n  ".join(["tasks:", *pairs])))
    before = rows(bench)
    for read in READS:
        getattr(queue, read)(**({"id": "t1"} if read == "track" else {}))
    for name, narrow in ACTS:
        with contextlib.suppress(DatabaseError):  # which is of one line
            queue.plan(name, **narrow).apply(max_rows=9).undo()
        assert rows(bench) == before
