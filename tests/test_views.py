"""The views say what the commands say, to roles that have no right on the tables; and what each of
the three answers costs."""

import os

import pandas as pd
import psycopg
import pytest
from pandas.testing import assert_frame_equal

from conftest import Bench
from operating import command, everything, many, objects
from queue_insights import demo
from queue_insights.ddl import options, views
from queue_insights.errors import InputError

STALE = "is not what `queue-insights views sql` prints now"
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname = 'queue_insights'"
LISTED = "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace('queue_insights')"


@pytest.fixture
def installed(bench: Bench) -> Bench:
    bench.track("hidden", "audio_ready")
    bench.task(bench.track("moved on", "ready"), "align")
    views.install(bench.queue)
    return bench


def test_they_return_exactly_what_the_commands_return(bench: Bench) -> None:
    queue = bench.queue
    demo.seed(bench.url, bench.variant, 1000)
    views.install(queue)
    with queue.snapshot() as moment:
        expected = {"backlog": queue.backlog(), "audit": queue.audit()}
        expected["pending_tasks"] = queue.upcoming(limit=None)
        driver = moment.connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        for view, frame in expected.items():
            cursor = driver.execute(f"SELECT * FROM queue_insights.{view}")
            assert [c.name for c in cursor.description or ()] == list(frame.columns)
            found = pd.DataFrame(cursor.fetchall(), columns=list(frame.columns))
            assert len(frame) > 0
            for name in frame:
                if isinstance(frame[name].dtype, pd.DatetimeTZDtype):
                    found[name] = pd.to_datetime(found[name], utc=True)
                found[name] = found[name].astype(frame[name].dtype)
            assert_frame_equal(found, frame)
    assert views.verify(queue) == []


def test_a_dashboard_needs_no_right_on_the_tables_and_keeps_its_own(installed: Bench) -> None:
    role = f"dashboard_{os.getpid()}_{installed.variant}"
    installed.sql(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA queue_insights TO {role}")
    installed.sql(f"GRANT SELECT ON queue_insights.backlog, queue_insights.audit TO {role}")
    installed.sql(f"GRANT SELECT ON queue_insights.pending_tasks TO {role} WITH GRANT OPTION")

    def hidden() -> object:
        with installed.connection.transaction():
            installed.sql(f"SET LOCAL ROLE {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):  # noqa: SIM117
                with installed.connection.transaction():
                    installed.sql("SELECT * FROM tracks")
            installed.sql("SELECT * FROM queue_insights.pending_tasks")
            return installed.sql("SELECT sum(hidden) FROM queue_insights.audit")[0][0]

    try:
        assert hidden() == 1
        views.install(installed.queue)
        assert hidden() == 1
        # Its name is that of a view's column, which REPLACE VIEW cannot change.
        installed.sql("ALTER TABLE audio_tasks RENAME grove_cid TO cid")
        assert len(views.verify(installed.queue)) == 3
        views.install(installed.queue)
        assert views.verify(installed.queue) == []
        assert hidden() == 1
        grantable = (
            "SELECT is_grantable FROM information_schema.table_privileges WHERE grantee = %s"
        )
        assert sorted(installed.sql(grantable, role)) == [("NO",), ("NO",), ("YES",)]
    finally:
        installed.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_uninstall_leaves_nothing_but_the_ledger_or_a_schema_that_was_there(bench: Bench) -> None:
    for name, code in (("verify", 3), ("install", 0), ("verify", 0), ("uninstall", 0)):
        assert command(bench.url, "views", name).exit_code == code
    assert bench.sql(SCHEMAS) == []
    assert views.uninstall(bench.queue) == "there were no views of queue-insights"
    assert len(views.verify(bench.queue)) == 3
    bench.sql("CREATE SCHEMA queue_insights")
    views.install(bench.queue)
    views.uninstall(bench.queue)
    assert bench.sql(SCHEMAS) == [("queue_insights",)]
    bench.track("hidden", "audio_ready")
    views.install(bench.queue)
    bench.queue.plan_backfill().apply(max_rows=1, pause=0)
    views.uninstall(bench.queue)
    assert list(bench.queue.runs().rows_done) == [1]
    assert not {"backlog", "audit", "pending_tasks"} & {row[0] for row in bench.sql(LISTED)}


def test_verify_finds_what_is_gone_or_changed(installed: Bench) -> None:
    definition = installed.sql("SELECT pg_get_viewdef('queue_insights.audit'::regclass)")[0][0]
    installed.sql(
        "CREATE OR REPLACE VIEW queue_insights.audit AS "
        f"SELECT * FROM ({definition.rstrip(';')}) a WHERE task_type <> 'align'"
    )
    installed.sql("DROP VIEW queue_insights.backlog")
    installed.sql("COMMENT ON VIEW queue_insights.pending_tasks IS NULL")
    findings = views.verify(installed.queue)
    assert [f.partition(":")[0] for f in findings] == [
        "there is no view queue_insights.backlog",
        "view queue_insights.audit was changed after it was installed",
        f"view queue_insights.pending_tasks {STALE}",
    ]
    views.install(installed.queue)
    assert views.verify(installed.queue) == []


def test_it_says_what_each_would_insert_and_leave_hidden_and_changes_nothing(bench: Bench) -> None:
    empty = options.compare(bench.queue)
    costs = empty[["stage_change_us", "rows_to_insert", "insert_ms", "hidden_after"]]
    assert not costs.to_numpy().any()
    with pytest.raises(InputError, match="sample 0"):
        options.compare(bench.queue, sample=0)
    bench.task(many(bench, "audio_ready", 5)[0], "align")
    before = everything(bench.connection), objects(bench)
    found = options.compare(bench.queue, sample=3, ensure=1).set_index("option")
    assert (everything(bench.connection), objects(bench)) == before
    assert found.rows_to_insert.to_dict() == {"none": 0, "trigger": 4, "views": 0, "ensure": 1}
    assert found.hidden_after.to_dict() == {"none": 4, "trigger": 0, "views": 0, "ensure": 3}
    assert found.stage_change_us["none"] == found.stage_change_us["views"] > 0
    assert found.stage_change_us["trigger"] != found.stage_change_us["none"]
    assert (found.read_ms > 0).all()
    assert list(found.insert_ms > 0) == [False, True, False, True]
