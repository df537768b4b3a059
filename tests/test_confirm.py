"""What a token confirms and what it does not, and what is refused: nothing is written then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Bench, Fresh
from operating import edited, everything, many, operable, pending
from queue_insights import demo
from queue_insights.errors import DatabaseError, InputError, PlanError, RunError

# What is refused, how, and as what.
Cases = list[tuple[type[Exception], str, Callable[[], object]]]


def refused(cases: Cases, *benches: Bench) -> list[Any]:
    """The errors of *cases*: one line each, and nothing is written."""
    before, errors = [everything(bench.connection) for bench in benches], []
    for kind, why, act in cases:
        with pytest.raises(kind, match=why) as error:
            act()
        assert "\n" not in str(error.value)
        errors.append(error.value)
    assert [everything(bench.connection) for bench in benches] == before
    return errors


@pytest.mark.parametrize(
    ("planned", "now", "applies"),
    [
        *((50, 60, True), (50, 61, False), (200, 220, True), (200, 221, False)),
        *((0, 10, True), (5, 16, False)),
    ],
)
def test_a_token_allows_a_tenth_or_ten_rows_more_though_every_row_is_another_by_now(
    fresh: Fresh, planned: int, now: int, applies: bool
) -> None:
    bench = fresh("a")
    many(bench, "audio_ready", planned)
    queue = operable(bench.url)
    token = queue.plan_backfill(tasks="align").token
    bench.sql("UPDATE tracks SET stage = 'aligned'")
    others = many(bench, "audio_ready", now, prefix="new")
    plan = queue.plan_backfill(tasks="align")
    if applies:
        run = plan.apply(confirm=token)
        assert pending(bench, "align") == others[:planned]
        counts = [run.row[name] for name in ("rows_planned", "rows_done", "came_after")]
        assert counts == [planned, planned, now - planned]
        return
    why = f"align has grown from {planned} rows to {now}"
    (error,) = refused([(PlanError, why, lambda: plan.apply(confirm=token))], bench)
    assert error.plan.rows == now
    assert error.plan.apply(confirm=error.plan.token).row["rows_done"] == now


def test_a_step_that_was_empty_may_not_grow_unseen_behind_the_total(bench: Bench) -> None:
    many(bench, "audio_ready", 40)
    plan = operable(bench.url).plan_backfill()
    assert plan.token
    bench.sql("UPDATE tracks SET stage = 'aligned'")
    why = "translate has grown from 0 rows to 40"
    assert refused([(PlanError, why, lambda: plan.apply(confirm=plan.token))], bench)


def test_a_token_is_refused_where_its_frame_has_changed_even_since_the_plan(
    fresh: Fresh, tmp_path: Path
) -> None:
    bench, twin = fresh("a"), fresh("a")
    file = edited(tmp_path, "stuck_after: 30m", "stuck_after: 31m")
    for one in (bench, twin):
        many(one, "audio_ready", 3)
    plan = operable(bench.url).plan_backfill()
    others = {
        "database": operable(twin.url).plan_backfill(),
        "pipeline file": operable(bench.url, file).plan_backfill(),
        "parameters": operable(bench.url).plan_backfill(limit=50),
        "action": operable(bench.url).plan_reset(),
        "its parameters": operable(bench.url).plan_backfill(tasks="align"),
    }
    cases: Cases = [
        (PlanError, what, lambda other=other: other.apply(confirm=plan.token))
        for what, other in others.items()
    ]
    errors = refused(cases, bench, twin)
    assert [error.plan.token for error in errors] == [other.token for other in others.values()]
    demo.migrate(bench.connection)
    why = "table variant is not what was planned"
    (error,) = refused([(PlanError, why, lambda: plan.apply(confirm=plan.token))], bench)
    error.plan.apply(confirm=error.plan.token)
    assert bench.sql("SELECT subject_type, count(*) FROM audio_tasks GROUP BY 1") == [("track", 3)]


def test_wrong_use_is_one_clear_line_and_writes_nothing(bench: Bench) -> None:
    many(bench, "audio_ready", 3)
    queue = operable(bench.url)
    plan = queue.plan_backfill()
    wrong = plan.token[:-1] + ("0" if plan.token[-1] != "0" else "1")
    tokens = (wrong, plan.token.replace("3.", "9.", 1), "", "é.5-x-y-z-0")
    both = {"confirm": plan.token, "max_rows": 5}
    cases: Cases = [
        *(
            (InputError, "not a plan's token", lambda token=token: plan.apply(confirm=token))
            for token in tokens
        ),
        (InputError, "either the plan's token or max_rows", plan.apply),
        (InputError, "either the plan's token or max_rows", lambda: plan.apply(**both)),
        (InputError, "expected a number", lambda: plan.apply(max_rows=True)),
        (InputError, "expected a number", lambda: plan.apply(max_rows=-1)),
        (PlanError, "3 rows, more than max_rows 2", lambda: plan.apply(max_rows=2)),
        (InputError, "unknown task 'alig'.*'align'", lambda: queue.plan_backfill(tasks="alig")),
        (InputError, "limit: found 0", lambda: queue.plan_backfill(limit=0)),
        (InputError, "older_than: found 5", lambda: queue.plan_reset(older_than=5)),  # type: ignore[arg-type]
        (InputError, "attempts: found 'all'", lambda: queue.plan_reset(attempts="all")),
        (InputError, "status: found 'running'", lambda: queue.plan_prune(status="running")),
        (RunError, "no run 7", lambda: queue.run(7)),
    ]
    refused(cases, bench)
    name = bench.connection.info.dbname
    bench.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    why = "read-only transaction; set QUEUE_INSIGHTS_WRITE_URL"
    fresh = operable(bench.url).plan_backfill()
    refused([(DatabaseError, why, lambda: fresh.apply(confirm=fresh.token))], bench)
