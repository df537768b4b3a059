"""What a token confirms and what it does not, and what is refused: nothing is written then."""

from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg import sql

from conftest import Bench
from operating import everything, many, operable, pending
from queue_insights import demo
from queue_insights.errors import DatabaseError, InputError, PlanError, RunError

LONG_AGO = sql.SQL("now() - interval '5 hours'")
STUCK = {"attempts": 1, "last_attempt_at": LONG_AGO}


def test_a_token_allows_what_was_planned_though_every_row_is_another_by_now(bench: Bench) -> None:
    many(bench, "audio_ready", 30)
    queue = operable(bench.url)
    token = queue.plan_backfill(tasks="align").token
    bench.sql("UPDATE tracks SET stage = 'aligned'")
    others = many(bench, "audio_ready", 35, prefix="new")
    run = queue.plan_backfill(tasks="align").apply(confirm=token)
    assert pending(bench, "align") == others[:30]
    assert (run.row["rows_planned"], run.row["rows_done"], run.row["came_after"]) == (30, 30, 5)


@pytest.mark.parametrize(
    ("planned", "now", "applies"),
    [
        (50, 60, True),
        (50, 61, False),
        (200, 220, True),
        (200, 221, False),
        (0, 10, True),
        (5, 16, False),
    ],
)
def test_a_step_may_grow_by_a_tenth_or_by_ten_rows(
    fresh: Callable[[str], Bench], planned: int, now: int, applies: bool
) -> None:
    bench = fresh("a")
    many(bench, "audio_ready", planned)
    queue = operable(bench.url)
    token = queue.plan_backfill().token
    many(bench, "audio_ready", now - planned, prefix="more")
    if applies:
        run = queue.plan_backfill().apply(confirm=token)
        assert (run.row["rows_done"], run.row["came_after"]) == (planned, now - planned)
        return
    before = everything(bench.connection)
    with pytest.raises(PlanError, match=f"align has grown from {planned} rows to {now}") as refusal:
        queue.plan_backfill().apply(confirm=token)
    assert refusal.value.plan.rows == now  # type: ignore[attr-defined]
    assert everything(bench.connection) == before
    assert refusal.value.plan.apply(confirm=refusal.value.plan.token).row["rows_done"] == now  # type: ignore[attr-defined]


def test_a_step_that_was_empty_may_not_grow_unseen_behind_the_total(bench: Bench) -> None:
    many(bench, "audio_ready", 40)
    queue = operable(bench.url)
    token = queue.plan_backfill().token
    bench.sql("UPDATE tracks SET stage = 'aligned'")
    with pytest.raises(PlanError, match="translate has grown from 0 rows to 40"):
        queue.plan_backfill().apply(confirm=token)


def test_a_token_is_refused_where_its_frame_has_changed(
    fresh: Callable[[str], Bench], tmp_path: Path
) -> None:
    bench, twin = fresh("a"), fresh("a")
    file = tmp_path / "karaoke.yaml"
    shipped = Path("params/pipelines/karaoke.yaml").read_text()
    file.write_text(shipped.replace("stuck_after: 30m", "stuck_after: 31m"))
    for one in (bench, twin):
        many(one, "audio_ready", 3)
    token = operable(bench.url).plan_backfill().token
    others = {
        "database": operable(twin.url).plan_backfill(),
        "pipeline file": operable(bench.url, file).plan_backfill(),
        "parameters": operable(bench.url).plan_backfill(limit=50),
        "action": operable(bench.url).plan_reset(),
        "its parameters": operable(bench.url).plan_backfill(tasks="align"),
    }
    before = everything(bench.connection), everything(twin.connection)
    for what, plan in others.items():
        with pytest.raises(PlanError, match=what) as refusal:
            plan.apply(confirm=token)
        assert refusal.value.plan.token == plan.token  # type: ignore[attr-defined]
    assert (everything(bench.connection), everything(twin.connection)) == before


def test_a_token_is_refused_after_the_migration_even_by_who_planned_before_it(
    fresh: Callable[[str], Bench],
) -> None:
    bench = fresh("a")
    many(bench, "audio_ready", 3)
    plan = operable(bench.url).plan_backfill()
    assert plan.rows == 3
    demo.migrate(bench.connection)
    with pytest.raises(PlanError, match="table variant is not what was planned") as refusal:
        plan.apply(confirm=plan.token)
    new = refusal.value.plan
    new.apply(confirm=new.token)  # type: ignore[attr-defined]
    assert bench.sql("SELECT subject_type, count(*) FROM audio_tasks GROUP BY 1") == [("track", 3)]


def test_wrong_use_is_one_clear_line_and_writes_nothing(bench: Bench) -> None:
    many(bench, "audio_ready", 3)
    queue = operable(bench.url)
    plan = queue.plan_backfill()
    wrong = plan.token[:-1] + ("0" if plan.token[-1] != "0" else "1")
    more = plan.token.replace("3.", "9.", 1)
    before = everything(bench.connection)
    cases: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (InputError, "not a plan's token", lambda: plan.apply(confirm=wrong)),
        (InputError, "not a plan's token", lambda: plan.apply(confirm=more)),
        (InputError, "not a plan's token", lambda: plan.apply(confirm="")),
        (InputError, "not a plan's token", lambda: plan.apply(confirm="é.5-x-y-z-0")),
        (InputError, "either the plan's token or max_rows", plan.apply),
        (
            InputError,
            "either the plan's token or max_rows",
            lambda: plan.apply(confirm=plan.token, max_rows=5),
        ),
        (InputError, "expected a number", lambda: plan.apply(max_rows=True)),
        (InputError, "expected a number", lambda: plan.apply(max_rows=-1)),
        (PlanError, "3 rows, more than max_rows 2", lambda: plan.apply(max_rows=2)),
        (InputError, "unknown task 'alig'.*'align'", lambda: queue.plan_backfill(tasks="alig")),
        (InputError, "limit: found 0", lambda: queue.plan_backfill(limit=0)),
        (InputError, "limit: found True", lambda: queue.plan_retry(limit=True)),
        (InputError, "older_than: found 5", lambda: queue.plan_reset(older_than=5)),  # type: ignore[arg-type]
        (InputError, "attempts: found 'all'", lambda: queue.plan_reset(attempts="all")),
        (InputError, "status: found 'running'", lambda: queue.plan_prune(status="running")),
        (RunError, "no run 7", lambda: queue.run(7)),
    ]
    for kind, text, call in cases:
        with pytest.raises(kind, match=text) as error:
            call()
        assert "\n" not in str(error.value)
    assert everything(bench.connection) == before


def test_max_rows_bounds_an_unattended_run(bench: Bench) -> None:
    many(bench, "audio_ready", 3)
    assert operable(bench.url).plan_backfill().apply(max_rows=3).row["rows_done"] == 3
    assert operable(bench.url).plan_backfill().apply(max_rows=0).row["rows_done"] == 0


GRANTS = {
    "backfill": {
        "tracks": ["SELECT", "UPDATE"],
        "audio_tasks": ["SELECT", "INSERT", "UPDATE", "DELETE"],
        "SEQUENCE audio_tasks_id_seq": ["USAGE"],
    },
    "retry": {"tracks": ["SELECT", "UPDATE"], "audio_tasks": ["SELECT", "UPDATE"]},
    "prune": {
        "tracks": ["SELECT", "UPDATE"],
        "audio_tasks": ["SELECT", "INSERT", "UPDATE", "DELETE"],
    },
}


@pytest.mark.parametrize("action", GRANTS)
def test_a_role_that_could_not_finish_or_undo_is_refused_before_anything_is_written(
    bench: Bench, action: str
) -> None:
    many(bench, "audio_ready", 3)
    bench.task(bench.track("f", "audio_ready"), "align", "failed", attempts=3)
    bench.task(bench.track("o", "aligned"), "align", "pending")
    role = f"role_{bench.connection.info.dbname}"
    wanted = [(table, p) for table, all_of in GRANTS[action].items() for p in all_of]
    bench.sql(f"CREATE ROLE {role} LOGIN")
    url = bench.url.replace("postgres@", f"{role}@")
    try:
        for table, privilege in wanted:
            bench.sql(f"GRANT {privilege} ON {table} TO {role}")
        queue = operable(url)
        plan = getattr(queue, f"plan_{action}")()
        before = everything(bench.connection)
        with pytest.raises(RunError, match=r"no ledger yet.*runs --ddl"):
            plan.apply(confirm=plan.token)
        assert everything(bench.connection) == before
        bench.sql(f"GRANT CREATE ON DATABASE {bench.connection.info.dbname} TO {role}")
        for table, privilege in wanted:
            if privilege == "SELECT":
                continue  # without it there is no plan
            bench.sql(f"REVOKE {privilege} ON {table} FROM {role}")
            with pytest.raises(
                RunError, match=f"lacks {privilege} on .*{table.split()[-1]}"
            ) as error:
                plan.apply(confirm=plan.token)
            assert "\n" not in str(error.value)
            bench.sql(f"GRANT {privilege} ON {table} TO {role}")
        assert everything(bench.connection) == before
        run = plan.apply(confirm=plan.token)
        assert run.row["role"] == role
        assert run.undo().row["rows_undone"] == run.row["rows_done"] > 0
    finally:
        bench.sql(f"DROP OWNED BY {role}")
        bench.sql(f"DROP ROLE {role}")


def test_a_role_without_rights_on_the_ledger_is_told_so(bench: Bench) -> None:
    many(bench, "audio_ready", 3)
    operable(bench.url).plan_retry().apply(max_rows=0)
    role = f"role_{bench.connection.info.dbname}"
    bench.sql(f"CREATE ROLE {role} LOGIN")
    try:
        bench.sql(f"GRANT ALL ON tracks, audio_tasks TO {role}")
        bench.sql(f"GRANT USAGE ON SEQUENCE audio_tasks_id_seq TO {role}")
        queue = operable(bench.url.replace("postgres@", f"{role}@"))
        plan = queue.plan_backfill()
        before = everything(bench.connection)
        with pytest.raises((RunError, DatabaseError), match="queue_insights") as error:
            plan.apply(confirm=plan.token)
        assert "\n" not in str(error.value)
        bench.sql(f"GRANT USAGE ON SCHEMA queue_insights TO {role}")
        with pytest.raises(RunError, match=r"lacks SELECT on queue_insights\.runs"):
            plan.apply(confirm=plan.token)
        assert everything(bench.connection) == before
    finally:
        bench.sql(f"DROP OWNED BY {role}")
        bench.sql(f"DROP ROLE {role}")


def test_a_read_only_server_is_refused_in_one_line(bench: Bench) -> None:
    many(bench, "audio_ready", 3)
    plan = operable(bench.url).plan_backfill()
    name = bench.connection.info.dbname
    before = everything(bench.connection)
    bench.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseError, match="read-only transaction; set QUEUE_INSIGHTS_WRITE_URL"):
        plan.apply(confirm=plan.token)
    assert everything(bench.connection) == before
