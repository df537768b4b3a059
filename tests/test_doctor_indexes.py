"""The doctor on indexes: what the planner needs and has not is made by the statement given."""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg import sql

from conftest import Bench
from examining import examine, fixes, one, remedy
from queue_insights import doctor, pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue


@pytest.fixture
def bench(fresh: Callable[[str], Bench]) -> Bench:
    return fresh("a")


@pytest.fixture(params=["a", "b"])
def either(fresh: Callable[[str], Bench], request: pytest.FixtureRequest) -> Bench:
    """What depends on the variant runs on both."""
    return fresh(request.param)


@pytest.mark.parametrize("index", ["tracks_stage_idx", "audio_tasks_task_type_status_idx"])
def test_a_missing_index_is_made_by_the_statement_given(either: Bench, index: str) -> None:
    either.sql(f"DROP INDEX {index}")
    (line,) = fixes(examine(either.url))
    assert remedy(line).startswith("CREATE INDEX CONCURRENTLY ")
    assert "WHERE" in remedy(line)
    either.sql(remedy(line))
    assert fixes(examine(either.url)) == []


def test_a_tracks_table_without_a_key_gets_one(bench: Bench) -> None:
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_fkey")
    bench.sql("ALTER TABLE tracks DROP CONSTRAINT tracks_pkey")
    (line,) = fixes(examine(bench.url))
    assert remedy(line).startswith("CREATE UNIQUE INDEX CONCURRENTLY ")
    bench.sql(remedy(line))
    assert fixes(examine(bench.url)) == []


@pytest.mark.parametrize(
    ("column", "index"),
    [
        ("stage", "tracks_stage_idx"),
        ("task_type", "audio_tasks_task_type_status_idx"),
        ("spotify_track_id", "tracks_pkey"),
        ("key", ""),
    ],
)
def test_an_invalid_index_does_not_count_and_is_mended_by_reindexing(
    either: Bench, column: str, index: str
) -> None:
    keys = {"a": "audio_tasks_spotify_track_id_task_type_key", "b": "audio_tasks_subject_task_key"}
    index = index or keys[either.variant]
    invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass"
    either.sql(invalid, index)  # as a failed CREATE INDEX CONCURRENTLY leaves it
    (line,) = fixes(examine(either.url))
    assert remedy(line) == f"REINDEX INDEX CONCURRENTLY {index};"
    either.sql(remedy(line))
    assert fixes(examine(either.url)) == []


@pytest.mark.parametrize(
    ("definition", "serves"),
    [
        ("(stage)", True),
        ("(stage, created_at DESC)", True),
        ("(stage) INCLUDE (title)", True),
        ("(stage) WHERE stage <> 'ready'", True),
        ("USING hash (stage)", True),
        ("(title, stage)", False),
        ("(stage) WHERE stage = 'audio_ready'", False),
        ("(stage) WHERE stage NOT IN ('ready', 'enhanced')", False),
        ("(lower(stage))", False),
    ],
)
def test_an_index_counts_where_the_planner_can_search_it(
    bench: Bench, definition: str, serves: bool
) -> None:
    bench.sql("DROP INDEX tracks_stage_idx")
    bench.sql(f"CREATE INDEX other ON tracks {definition}")
    assert (fixes(examine(bench.url)) == []) == serves


def test_two_indexes_that_only_together_serve_every_step_are_enough(bench: Bench) -> None:
    bench.sql("DROP INDEX tracks_stage_idx")
    bench.sql("CREATE INDEX one ON tracks (stage) WHERE stage = 'audio_ready'")
    bench.sql("CREATE INDEX two ON tracks (stage) WHERE stage <> 'audio_ready'")
    lines = examine(bench.url)
    assert fixes(lines) == []
    assert one(lines, "tracks (stage)").endswith(": one, two")


def test_names_in_statements_are_quoted(bench: Bench, tmp_path: Any) -> None:
    bench.sql("""
        DROP INDEX tracks_stage_idx;
        ALTER TABLE tracks RENAME stage TO "st""age; --";
        ALTER TABLE tracks RENAME TO "Track's 100%";
        ALTER TABLE audio_tasks RENAME TO "order";
        CREATE SCHEMA "my schema";
        ALTER TABLE "Track's 100%" SET SCHEMA "my schema"
    """)
    text = (pipeline.shipped("params") / "pipelines" / "karaoke.yaml").read_text()
    text = text.replace("table: tracks ", """table: '"my schema"."Track''s 100%"'""")
    text = text.replace("stage: stage\n", """stage: 'st"age; --'\n""", 1)
    text = text.replace("table: audio_tasks", "table: order")
    (tmp_path / "file.yaml").write_text(text)
    queue = Queue(Database(bench.url), pipeline.load(tmp_path / "file.yaml"))
    lines = list(map(str, doctor.examine(queue)))
    assert one(lines, "stages: the table allows").startswith("ok ")
    (line,) = fixes(lines)
    assert """ON "my schema"."Track's 100%" ("st""age; --")""" in line
    bench.sql(remedy(line))
    assert fixes(list(map(str, doctor.examine(queue)))) == []


def test_views_instead_of_tables_are_not_examined_for_indexes(bench: Bench) -> None:
    bench.sql("ALTER TABLE tracks RENAME TO t; CREATE VIEW tracks AS SELECT * FROM t")
    assert one(examine(bench.url), "tracks (stage)").startswith("note indexes: ")


def test_where_history_is_long_two_more_indexes_are_advised(
    either: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        track, hours = either.track(f"t{number:02}", "ready"), sql.Literal(100 - number)
        at = sql.SQL("now() - {} * interval '1 h'").format(hours)
        either.task(track, "align", "completed", completed_at=at)
    either.sql("ANALYZE audio_tasks")
    assert [line for line in examine(either.url) if "history is long" in line] == []
    monkeypatch.setattr(doctor, "LONG_HISTORY", 50)
    lines = [line for line in examine(either.url) if "history is long (50 rows)" in line]
    assert [line[:4] for line in lines] == ["note", "note"]
    assert remedy(lines[0]) == (
        "CREATE INDEX CONCURRENTLY ON public.audio_tasks USING brin (completed_at) "
        "WITH (pages_per_range = 32) WHERE completed_at IS NOT NULL;"
    )
    for line in lines:
        either.sql(remedy(line))
    assert [line for line in examine(either.url) if "history is long" in line] == []


def test_no_brin_index_is_advised_where_rows_do_not_lie_in_the_order_of_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "LONG_HISTORY", 50)
    for number in range(50):
        hours = sql.Literal(number * 29 % 50)
        at = sql.SQL("now() - {} * interval '1 h'").format(hours)
        bench.task(bench.track(f"t{number:02}", "ready"), "align", "completed", completed_at=at)
    bench.sql("ANALYZE audio_tasks")
    (line,) = [line for line in examine(bench.url) if "history is long" in line]
    assert remedy(line).endswith("(task_type) WHERE completed_at IS NULL;")
