"""What version 0.1.0 left in a database is taken over: its runs, trigger, views and files.

The databases in data/ were made by that version and written out by pg_dump.
"""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from conftest import Bench, Url, database
from operating import operable, pending
from queue_insights.ddl import trigger, views

DATA = Path(__file__).parent / "data"


@pytest.fixture(params=["a", "b"])
def left(request: pytest.FixtureRequest, server: Url) -> Iterator[Bench]:
    with database(server) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute((DATA / f"left_by_0.1.0_{request.param}.sql").read_bytes())
        connection.execute("RESET ALL")
        yield Bench(url, request.param, connection, operable(url))


def test_its_finished_run_is_undone_and_its_unfinished_one_resumed_and_undone(left: Bench) -> None:
    runs = left.queue.runs()
    assert list(zip(runs.run, runs.action, strict=True)) == [(2, "backfill"), (1, "reset")]
    states = "SELECT status, attempts, count(*) FROM audio_tasks WHERE task_type = 'translate' "
    states += "GROUP BY 1, 2"
    assert left.sql(states) == [("pending", 1, 4)]
    finished, unfinished = left.queue.run(1), left.queue.run(2)
    assert (finished.state, finished.row["rows_done"]) == ("finished", 4)
    undone = finished.undo(pause=0)
    assert (undone.row["rows_undone"], undone.row["rows_kept"]) == (4, 0)
    assert left.sql(states) == [("running", 2, 4)]
    found = unfinished.state, unfinished.row["rows_done"], unfinished.row["host"]
    assert found == ("running", 8, "elsewhere")
    assert unfinished.resume(pause=0).state == "finished"
    assert pending(left, "align") == [f"t{i:02}" for i in range(24)]
    assert unfinished.row["rows_done"] == 24
    assert unfinished.undo(pause=0).row["rows_undone"] == 24
    assert pending(left, "align") == []


def test_its_trigger_is_in_place_and_its_views_are_replaced(left: Bench) -> None:
    assert trigger.verify(left.queue, prove=True) == []
    assert trigger.uninstall(left.queue) == "trigger removed from public.tracks"
    assert "there is no trigger" in trigger.verify(left.queue)[0]
    left.sql("CREATE ROLE reader_of_views")
    try:
        left.sql("GRANT SELECT ON queue_insights.backlog TO reader_of_views")
        stale = views.verify(left.queue)
        assert any("queue_insights.backlog" in line and "views install" in line for line in stale)
        views.install(left.queue)
        assert views.verify(left.queue) == []
        allowed = "has_table_privilege('reader_of_views', 'queue_insights.backlog', 'SELECT')"
        assert left.sql(f"SELECT {allowed}") == [(True,)]
        assert views.uninstall(left.queue) == "views removed"
    finally:
        left.sql("DROP OWNED BY reader_of_views; DROP ROLE reader_of_views")
