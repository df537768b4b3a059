"""What the five actions do to rows: which they take, what they make of them, and what they refuse.

Expectations are DESIGN sections 3 and 5, in plain SQL or written out here.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from conftest import Bench
from operating import (
    everything,
    give_rows,
    many,
    operable,
    pending,
    rows,
    status,
    video,
)
from queue_insights import pipeline
from queue_insights.actions import apply
from queue_insights.errors import DatabaseError, InputError, PlanError, RunError

LONG_AGO = sql.SQL("now() - interval '5 hours'")
STUCK = {"attempts": 1, "last_attempt_at": LONG_AGO}


def test_the_incident_is_repaired_50_at_the_stage_0_pending_before_50_after(bench: Bench) -> None:
    in_order = many(bench, "audio_ready", "align", 50)
    video(bench, "align")
    queue = operable(bench.url)
    before = queue.backlog().set_index("task_type").loc["align"]
    arrived = queue.missing("align").arrived_at.min()

    plan = queue.plan_backfill(tasks=["align"])
    assert plan.counts.to_dict("records") == [
        {
            **{"stage": "audio_ready", "task_type": "align", "rows": 50},
            **{"ends_pending": 50, "ends_exhausted": 0},
        }
    ]
    assert pending(bench, "align") == []
    run = plan.apply(confirm=plan.token)

    assert (run.state, run.row["rows_done"], run.row["rows_dropped"]) == ("finished", 50, 0)
    assert pending(bench, "align") == in_order
    with queue.snapshot() as moment:
        after = queue.backlog().set_index("task_type").loc["align"]
        age = (moment.as_of - arrived).total_seconds()
    assert (before.missing, before.pending, after.missing, after.pending) == (50, 0, 0, 50)
    assert after.oldest_waiting_seconds == pytest.approx(age, abs=1e-3)


def test_backfilled_rows_are_as_the_application_makes_them_but_for_their_creation(
    bench: Bench,
) -> None:
    made, ours = bench.track("made", "audio_ready"), bench.track("ours", "audio_ready")
    give_rows(bench, [made], "align", "pending")
    plan = operable(bench.url).plan_backfill()
    plan.apply(confirm=plan.token)
    columns = "to_jsonb(a) - '{id,spotify_track_id,subject_id,created_at,updated_at}'::text[]"
    found = bench.sql(f"SELECT {columns} FROM audio_tasks a ORDER BY spotify_track_id")
    assert found[0] == found[1]
    ((same,),) = bench.sql(
        "SELECT a.created_at = t.updated_at FROM audio_tasks a JOIN tracks t "
        "USING (spotify_track_id) WHERE spotify_track_id = %s",
        ours,
    )
    assert same


def test_backfill_keeps_arrival_across_batches_steps_and_ties(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("CHUNK", 3), ("FIRST", 1), ("LARGEST", 2)):
        monkeypatch.setattr(apply, name, size)
    many(bench, "audio_ready", "align", 40)
    many(bench, "aligned", "translate", 30, prefix="later")
    # Half of them arrived by completing the step before, at times of their own; some together.
    for previous, prefix, n in (("download", "t", 20), ("align", "later", 15)):
        give_rows(
            bench,
            [f"{prefix}{i}" for i in range(1, n + 1)],
            previous,
            "completed",
            completed_at="now() - make_interval(mins => 3 * mod(hashtext(track), 10) + 60)",
        )
    queue = operable(bench.url)
    expected = {task: list(queue.missing(task).spotify_track_id) for task in ("align", "translate")}
    plan = queue.plan_backfill()
    run = plan.apply(confirm=plan.token, pause=0)
    assert bench.sql("SELECT count(*) > 10 FROM queue_insights.batches") == [(True,)]
    for task, tracks in expected.items():
        found = bench.sql(
            "SELECT spotify_track_id FROM audio_tasks WHERE task_type = %s AND status = 'pending' "
            "ORDER BY created_at, spotify_track_id",
            task,
        )
        assert [track for (track,) in found] == tracks
    assert run.row["rows_done"] == 70


def test_backfill_gives_each_step_its_own_max_attempts(bench: Bench, tmp_path: Path) -> None:
    shipped = Path("params/pipelines/karaoke.yaml").read_text()
    file = tmp_path / "p.yaml"
    file.write_text(
        shipped.replace(
            "stage: aligned, task: translate", "stage: aligned, task: translate, max_attempts: 7"
        )
    )
    bench.track("one", "audio_ready")
    bench.track("two", "aligned")
    plan = operable(bench.url, file).plan_backfill()
    assert list(plan.preview().max_attempts_after) == [3, 7]
    plan.apply(confirm=plan.token)
    found = bench.sql("SELECT task_type, max_attempts FROM audio_tasks ORDER BY 1")
    assert found == [("align", 3), ("translate", 7)]


def test_backfill_with_a_limit_takes_the_tracks_that_workers_would_take_first(bench: Bench) -> None:
    order = many(bench, "audio_ready", "align", 30) + many(
        bench, "enhanced", "clip", 30, prefix="late"
    )
    queue = operable(bench.url)
    first = list(queue.upcoming(limit=20).spotify_track_id)
    assert len({track[:4] == "late" for track in first}) == 2
    plan = queue.plan_backfill(limit=20)
    assert list(plan.preview(50).spotify_track_id) == first
    plan.apply(confirm=plan.token)
    found = bench.sql("SELECT spotify_track_id FROM audio_tasks")
    assert sorted(track for (track,) in found) == sorted(first)
    assert len(order) == 60


def test_backfill_leaves_alone_what_has_a_row_and_what_stands_elsewhere(bench: Bench) -> None:
    for state in ("pending", "running", "completed", "failed"):
        give_rows(bench, [bench.track(state, "audio_ready")], "align", state)
    for stage in ("pending", "ready", "failed"):
        bench.track(f"at {stage}", stage)
    video(bench, "align")
    before = rows(bench.connection)
    plan = operable(bench.url).plan_backfill()
    assert plan.rows == 0
    assert plan.apply(confirm=plan.token).state == "finished"
    assert rows(bench.connection) == before


# attempts and max_attempts of a stuck row -> what each choice makes of it.
RESETS = [
    (1, 3, {"refund": (0, 3), "keep": (1, 3), "zero": (0, 3)}),
    (3, 3, {"refund": (2, 3), "keep": (3, 3), "zero": (0, 3)}),
    (5, 3, {"refund": (4, 3), "keep": (5, 3), "zero": (0, 3)}),
    (0, 3, {"refund": (0, 3), "keep": (0, 3), "zero": (0, 3)}),
    (None, 3, {"refund": (0, 3), "keep": (None, 3), "zero": (0, 3)}),
    (2, None, {"refund": (1, 3), "keep": (2, None), "zero": (0, 3)}),
    (2, 0, {"refund": (1, 3), "keep": (2, 0), "zero": (0, 3)}),
]


@pytest.mark.parametrize("attempts", ["refund", "keep", "zero"])
def test_reset_makes_stuck_rows_pending_and_its_plan_says_what_each_ends_as(
    bench: Bench, attempts: str
) -> None:
    ids = [
        bench.task(
            bench.track(f"t{i}", "audio_ready"),
            "align",
            "running",
            attempts=had,
            max_attempts=most,
            last_attempt_at=LONG_AGO,
            next_retry_at=LONG_AGO,
        )
        for i, (had, most, _) in enumerate(RESETS)
    ]
    plan = operable(bench.url).plan_reset(tasks="align", attempts=attempts)
    expected = [after[attempts] for _, _, after in RESETS]
    preview = plan.preview(50).sort_values("spotify_track_id")
    shown = zip(preview.attempts_after, preview.max_attempts_after, strict=True)
    assert [tuple(None if v != v else v for v in pair) for pair in _plain(shown)] == expected
    usable = [a is not None and m is not None and a < m for a, m in expected]
    counts = plan.counts.iloc[0]
    assert (counts.ends_pending, counts.ends_exhausted) == (sum(usable), len(usable) - sum(usable))

    plan.apply(confirm=plan.token)
    assert [row[:3] for row in status(bench, *ids)] == [("pending", a, m) for a, m in expected]
    assert all(row[3] is None for row in status(bench, *ids))
    backlog = operable(bench.url).backlog().set_index("task_type").loc["align"]
    assert (backlog.pending, backlog.exhausted) == (counts.ends_pending, counts.ends_exhausted)


def _plain(pairs: Any) -> list[tuple[Any, ...]]:
    import pandas as pd

    return [tuple(None if pd.isna(v) else int(v) for v in pair) for pair in pairs]


def test_reset_takes_running_rows_only_once_they_are_stuck(bench: Bench) -> None:
    def running(name: str, stage: str, started: sql.Composable | None) -> int:
        track = bench.track(name, stage)
        return bench.task(track, "align", "running", attempts=1, last_attempt_at=started)

    stuck = [running("old", "audio_ready", LONG_AGO), running("never", "audio_ready", None)]
    others = [
        running("fresh", "audio_ready", sql.SQL("now() - interval '29 minutes'")),
        running("elsewhere", "aligned", LONG_AGO),
    ]
    video(bench, "align", "running")
    untouched = {id: row for id, row in rows(bench.connection).items() if id not in stuck}
    plan = operable(bench.url).plan_reset()
    assert plan.rows == 2
    plan.apply(confirm=plan.token)
    assert [row[0] for row in status(bench, *stuck, *others)] == ["pending"] * 2 + ["running"] * 2
    assert {i: r for i, r in rows(bench.connection).items() if i not in stuck} == untouched


def test_retry_makes_exhausted_and_failed_rows_pending_with_fresh_attempts(bench: Bench) -> None:
    def row(name: str, status: str, **columns: Any) -> int:
        return bench.task(bench.track(name, "audio_ready"), "align", status, **columns)

    ahead = sql.SQL("now() + interval '20 minutes'")
    taken = [
        row("exhausted", "failed", attempts=3),
        row("exhausted pending", "pending", attempts=3),
        row("null attempts", "pending", attempts=None),
        row("null limit", "failed", attempts=1, max_attempts=None),
        row("retryable", "failed", attempts=1),
        row("backing off", "failed", attempts=1, next_retry_at=ahead),
        row("own limit", "failed", attempts=9, max_attempts=9),
    ]
    left = [
        row("pending", "pending", attempts=1),
        row("pending later", "pending", attempts=1, next_retry_at=ahead),
        row("running", "running", **STUCK),
        row("completed", "completed", attempts=3),
        bench.task(bench.track("moved on", "aligned"), "align", "failed", attempts=3),
    ]
    video(bench, "align", "failed")
    before = rows(bench.connection)
    plan = operable(bench.url).plan_retry()
    assert plan.counts.ends_pending.sum() == plan.rows == len(taken)
    plan.apply(confirm=plan.token)
    after = status(bench, *taken)
    assert [row[:2] for row in after] == [("pending", 0)] * len(taken)
    assert [row[2] for row in after] == [3, 3, 3, 3, 3, 3, 9]
    assert {row[3] for row in after} == {None}
    kept = rows(bench.connection)
    assert all(kept[id] == before[id] for id in before if id not in taken)
    assert len(left) + len(taken) <= len(before)


def test_requeue_makes_completed_rows_pending_whose_track_still_stands_there(bench: Bench) -> None:
    done = {"attempts": 2, "completed_at": LONG_AGO, "processing_duration_ms": 9}
    drifted = bench.task(bench.track("drifted", "audio_ready"), "align", "completed", **done)
    bench.task(bench.track("gone on", "aligned"), "align", "completed", **done)
    video(bench, "align", "completed")
    before = rows(bench.connection)
    plan = operable(bench.url).plan_requeue()
    assert plan.rows == 1
    plan.apply(confirm=plan.token)
    assert status(bench, drifted) == [("pending", 0, 3, None)]
    found = bench.sql(
        "SELECT completed_at, processing_duration_ms FROM audio_tasks WHERE id = %s", drifted
    )
    assert found == [(None, None)]
    after = rows(bench.connection)
    assert [id for id in before if before[id] != after[id]] == [drifted]


def test_prune_removes_orphans_of_the_chosen_status_and_nothing_else(bench: Bench) -> None:
    orphans = {
        status: bench.task(bench.track(f"o {status}", "aligned"), "align", status)
        for status in ("pending", "failed", "running", "completed")
    }
    bench.task(bench.track("at its stage", "audio_ready"), "align", "pending")
    video(bench, "align")
    before = rows(bench.connection)
    queue = operable(bench.url)
    for chosen in ("pending", "failed"):
        plan = queue.plan_prune(status=chosen)
        assert (plan.rows, plan.counts.ends_pending.sum()) == (1, 0)
        plan.apply(confirm=plan.token)
        del before[orphans[chosen]]
        assert rows(bench.connection) == before


@pytest.mark.parametrize("action", ["reset", "retry", "requeue", "prune"])
def test_actions_narrow_down_by_task_age_error_and_limit(bench: Bench, action: str) -> None:
    status, stage, columns = {
        "reset": ("running", "audio_ready", {}),
        "retry": ("failed", "audio_ready", {}),
        "requeue": ("completed", "audio_ready", {}),
        "prune": ("pending", "enriched", {}),
    }[action]

    def row(name: str, hours: int, error: str | None = None) -> int:
        return bench.task(
            bench.track(name, stage),
            "align",
            status,
            last_attempt_at=sql.SQL(f"now() - interval '{hours} hours'"),
            created_at=sql.SQL(f"now() - interval '{hours + 10} hours'"),
            error_message=error,
            **columns,
        )

    row("a", 2, "CUDA out of memory: 100%_free")
    row("b", 30, "cuda OUT of memory")
    row("c", 50, "100 free")
    row("d", 3)
    other = bench.track("x", "lyrics_acquired" if action != "prune" else "enriched")
    bench.task(other, "download", status, last_attempt_at=LONG_AGO)
    plan = getattr(operable(bench.url), f"plan_{action}")

    def ids(**given: Any) -> str:
        return "".join(sorted(plan(**given).preview(50).spotify_track_id))

    assert ids() == "abcdx"
    assert ids(tasks="align") == "abcd"
    assert ids(tasks=["align", "download"]) == "abcdx"
    assert ids(tasks=["align"], older_than="24h") == "bc"
    assert ids(error="Out Of") == "ab"
    assert ids(error="100%_") == "a"
    assert ids(tasks="align", limit=2) == "bc"
    assert ids(error="out of", older_than=timedelta(hours=24)) == "b"


def test_older_than_counts_from_arrival_where_nothing_was_attempted(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", "align", 5)
    oldest = bench.sql("SELECT updated_at FROM tracks WHERE spotify_track_id = %s", tracks[0])
    queue = operable(bench.url)
    age = queue.as_of - oldest[0][0] - timedelta(seconds=30)
    plan = queue.plan_backfill(older_than=age)
    assert list(plan.preview().spotify_track_id) == tracks[:1]
    plan.apply(confirm=plan.token)
    assert pending(bench, "align") == tracks[:1]


def test_a_plan_reads_only_and_previews_rows_in_order_of_arrival(bench: Bench) -> None:
    order = many(bench, "audio_ready", "align", 30)
    before = everything(bench.connection)
    plan = operable(bench.url).plan_backfill()
    preview = plan.preview(7)
    assert list(preview.spotify_track_id) == order[:7]
    assert [str(t) for t in preview.dtypes] == [
        *("str", "str", "str", "str", "datetime64[us, UTC]"),
        *("str", "Int64", "Int64", "str", "Int64", "Int64"),
    ]
    assert [str(t) for t in plan.counts.dtypes] == ["str", "str", "int64", "int64", "int64"]
    assert everything(bench.connection) == before


# ---- the token ---------------------------------------------------------------------------------


def test_a_token_allows_what_was_planned_though_every_row_is_another_by_now(bench: Bench) -> None:
    many(bench, "audio_ready", "align", 30)
    queue = operable(bench.url)
    token = queue.plan_backfill(tasks="align").token
    bench.sql("UPDATE tracks SET stage = 'aligned'")
    others = many(bench, "audio_ready", "align", 35, prefix="new")
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
    many(bench, "audio_ready", "align", planned)
    queue = operable(bench.url)
    token = queue.plan_backfill().token
    many(bench, "audio_ready", "align", now - planned, prefix="more")
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
    many(bench, "audio_ready", "align", 40)
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
        many(one, "audio_ready", "align", 3)
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
    from queue_insights import demo

    bench = fresh("a")
    many(bench, "audio_ready", "align", 3)
    plan = operable(bench.url).plan_backfill()
    assert plan.rows == 3
    demo.migrate(bench.connection)
    with pytest.raises(PlanError, match="table variant is not what was planned") as refusal:
        plan.apply(confirm=plan.token)
    new = refusal.value.plan
    new.apply(confirm=new.token)  # type: ignore[attr-defined]
    assert bench.sql("SELECT subject_type, count(*) FROM audio_tasks GROUP BY 1") == [("track", 3)]


# ---- refusals ----------------------------------------------------------------------------------


def test_wrong_use_is_one_clear_line_and_writes_nothing(bench: Bench) -> None:
    many(bench, "audio_ready", "align", 3)
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
    many(bench, "audio_ready", "align", 3)
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
    many(bench, "audio_ready", "align", 3)
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
            with pytest.raises(RunError, match=f"lacks {privilege} on .*{table}") as error:
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
    many(bench, "audio_ready", "align", 3)
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
    many(bench, "audio_ready", "align", 3)
    plan = operable(bench.url).plan_backfill()
    name = bench.connection.info.dbname
    before = everything(bench.connection)
    bench.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseError, match="read-only transaction; set QUEUE_INSIGHTS_WRITE_URL"):
        plan.apply(confirm=plan.token)
    assert everything(bench.connection) == before


# ---- undo --------------------------------------------------------------------------------------


def test_undo_puts_everything_back_exactly_but_updated_at(bench: Bench) -> None:
    many(bench, "audio_ready", "align", 5)
    odd = {
        "metadata": sql.SQL("'null'::jsonb"),
        "error_details": sql.SQL("""'{"a": null, "b": [1.50, "\\u05e9"]}'::jsonb"""),
        "error_message": 'it\'s \\ "broken"\n',
        "next_retry_at": sql.SQL("'infinity'"),
        "created_at": sql.SQL("now() - interval '1.000001 days'"),
    }
    bench.task(bench.track("s", "audio_ready"), "align", "running", **STUCK, **odd)
    bench.task(bench.track("f", "audio_ready"), "align", "failed", attempts=None, **odd)
    bench.task(bench.track("d", "audio_ready"), "align", "completed", completed_at=LONG_AGO, **odd)
    bench.task(bench.track("o", "aligned"), "align", "pending", max_attempts=None, **odd)
    bench.task(bench.track("p", "aligned"), "align", "failed", **odd)
    video(bench, "align")
    queue = operable(bench.url)
    before = rows(bench.connection)
    runs = [
        plan.apply(confirm=plan.token)
        for plan in (
            queue.plan_backfill(),
            queue.plan_reset(),
            queue.plan_retry(),
            queue.plan_requeue(),
            queue.plan_prune(),
            queue.plan_prune(status="failed"),
        )
    ]
    assert [run.row["rows_done"] for run in runs] == [6, 1, 1, 1, 1, 1]
    states = []
    for run in reversed(runs):
        run.undo()
        states.append((run.state, run.row["rows_undone"], run.row["rows_kept"]))
        assert len(run.kept()) == 0
    assert states == [("undone", n, 0) for n in (1, 1, 1, 1, 1, 6)]
    assert rows(bench.connection) == before


def test_undo_of_a_chain_on_the_same_rows_in_reverse_order_restores_each_stage(
    bench: Bench,
) -> None:
    id = bench.task(bench.track("t", "audio_ready"), "align", "failed", attempts=3)
    queue = operable(bench.url)
    seen, runs = [rows(bench.connection)], []
    for prepare, plan in (
        ("", queue.plan_retry),
        ("UPDATE tracks SET stage = 'aligned'", queue.plan_prune),
    ):
        if prepare:
            bench.sql(prepare)
        runs.append(plan().apply(max_rows=9))
        seen.append(rows(bench.connection))
    assert [list(state) for state in seen] == [[id], [id], []]
    for run in reversed(runs):
        assert rows(bench.connection) == seen.pop()
        run.undo()
        assert rows(bench.connection) == seen[-1]


def test_undo_keeps_and_lists_what_has_moved_on(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", "align", 4)
    queue = operable(bench.url)
    run = queue.plan_backfill(tasks="align").apply(max_rows=9)
    ids = dict(bench.sql("SELECT spotify_track_id, id FROM audio_tasks"))
    bench.sql("UPDATE audio_tasks SET status = 'running', attempts = 1 WHERE id = %s", ids["t1"])
    bench.sql("UPDATE audio_tasks SET metadata = '{}' WHERE id = %s", ids["t2"])
    bench.sql("DELETE FROM audio_tasks WHERE id = %s", ids["t3"])
    bench.sql("UPDATE audio_tasks SET updated_at = now() WHERE id = %s", ids["t4"])
    kept = rows(bench.connection)
    del kept[ids["t4"]]
    run.undo()
    assert rows(bench.connection) == kept
    listed = run.kept().set_index("id").reason.to_dict()
    assert listed == {
        str(ids["t1"]): "it has changed since: running",
        str(ids["t2"]): "it has changed since: pending",
        str(ids["t3"]): "it is gone",
    }
    assert (run.row["rows_undone"], run.row["rows_kept"], len(tracks)) == (1, 3, 4)


def test_undo_of_prune_leaves_out_what_has_another_row_or_no_track_by_now(bench: Bench) -> None:
    ids = [bench.task(bench.track(f"t{i}", "aligned"), "align", "pending") for i in range(3)]
    run = operable(bench.url).plan_prune().apply(max_rows=3)
    other = bench.task("t0", "align", "running", attempts=1)
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 't1'")
    run.undo()
    assert set(rows(bench.connection)) == {other, ids[2]}
    assert set(run.kept().id) == {str(ids[0]), str(ids[1])}


def test_undo_of_an_undone_run_and_resume_of_an_ended_one_are_refused(bench: Bench) -> None:
    many(bench, "audio_ready", "align", 3)
    queue = operable(bench.url)
    run = queue.plan_backfill().apply(max_rows=3)
    before = everything(bench.connection)
    with pytest.raises(RunError, match="run 1 is finished: there is nothing to resume"):
        run.resume()
    with pytest.raises(RunError, match="run 1 is finished: there is nothing to stop"):
        run.stop()
    assert everything(bench.connection) == before
    run.undo()
    before = everything(bench.connection)
    for again in (run.undo, run.resume):
        with pytest.raises(RunError, match="run 1 is undone"):
            again()
    assert everything(bench.connection) == before


def test_a_run_is_not_undone_through_another_pipeline_or_after_the_migration(
    fresh: Callable[[str], Bench], tmp_path: Path
) -> None:
    from queue_insights import demo

    bench = fresh("a")
    many(bench, "audio_ready", "align", 3)
    operable(bench.url).plan_backfill().apply(max_rows=3)
    file = tmp_path / "karaoke.yaml"
    shipped = Path("params/pipelines/karaoke.yaml").read_text()
    file.write_text(shipped.replace("stuck_after: 30m", "stuck_after: 31m"))
    with pytest.raises(RunError, match="belongs to pipeline 'karaoke' as it was then"):
        operable(bench.url, file).run(1).undo()
    demo.migrate(bench.connection)
    with pytest.raises(RunError, match=r"variant A.*variant B"):
        operable(bench.url).run(1).undo()


# ---- what changes between the plan and the batch, and locks --------------------------------------


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Start a run as a process that dies before its first batch."""

    def begin(plan: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(apply, "_drive", lambda queue, run, fence, pause: apply.Run(queue, run))
            return plan.apply(confirm=plan.token)

    return begin


def test_every_row_is_checked_again_in_its_batch_and_what_no_longer_qualifies_is_listed(
    bench: Bench, begun: Callable[[Any], Any]
) -> None:
    def stuck(name: str) -> int:
        return bench.task(bench.track(name, "audio_ready"), "align", "running", **STUCK)

    ids = {name: stuck(name) for name in ("same", "alive", "done", "moved", "gone")}
    run = begun(operable(bench.url).plan_reset())
    bench.sql("UPDATE audio_tasks SET last_attempt_at = now() WHERE id = %s", ids["alive"])
    bench.sql("UPDATE audio_tasks SET status = 'completed' WHERE id = %s", ids["done"])
    bench.sql("UPDATE tracks SET stage = 'aligned' WHERE spotify_track_id = 'moved'")
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 'gone'")
    before = rows(bench.connection)
    run.resume()
    after = rows(bench.connection)
    assert [id for id in before if before[id] != after[id]] == [ids["same"]]
    assert run.dropped().set_index("id").reason.to_dict() == {
        str(ids["alive"]): "its row is running",
        str(ids["done"]): "its row is completed",
        str(ids["moved"]): "its track is at aligned",
        str(ids["gone"]): "it is gone",
    }
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (1, 4)


def test_backfill_leaves_out_tracks_that_got_a_row_or_moved_on_since(
    bench: Bench, begun: Callable[[Any], Any]
) -> None:
    for name in ("same", "has row", "moved", "gone"):
        bench.track(name, "audio_ready")
    run = begun(operable(bench.url).plan_backfill())
    own = bench.task("has row", "align", "running", attempts=1)
    bench.sql("UPDATE tracks SET stage = 'failed' WHERE spotify_track_id = 'moved'")
    bench.sql("DELETE FROM tracks WHERE spotify_track_id = 'gone'")
    run.resume()
    found = bench.sql("SELECT spotify_track_id FROM audio_tasks WHERE id <> %s", own)
    assert found == [("same",)]
    assert run.dropped().set_index("id").reason.to_dict() == {
        "has row": "its row is running",
        "moved": "its track is at failed",
        "gone": "it is gone",
    }


def test_prune_leaves_an_orphan_whose_track_came_back_to_its_stage(
    bench: Bench, begun: Callable[[Any], Any]
) -> None:
    id = bench.task(bench.track("t", "aligned"), "align", "pending")
    run = begun(operable(bench.url).plan_prune())
    bench.sql("UPDATE tracks SET stage = 'audio_ready'")
    run.resume()
    assert set(rows(bench.connection)) == {id}


@pytest.mark.parametrize("action", ["backfill", "reset", "prune"])
def test_a_batch_goes_around_locked_rows_and_comes_back_for_them(bench: Bench, action: str) -> None:
    for i in range(4):
        stage = {"backfill": "audio_ready", "reset": "audio_ready", "prune": "aligned"}[action]
        track = bench.track(f"t{i}", stage)
        if action == "reset":
            bench.task(track, "align", "running", **STUCK)
        if action == "prune":
            bench.task(track, "align", "pending")
    plan = getattr(operable(bench.url), f"plan_{action}")(tasks="align")
    with psycopg.connect(bench.url) as other:
        if action == "backfill":  # a worker in the midst of its ensure
            own = "subject_type, subject_id, " if bench.variant == "b" else ""
            values = "'track', 't2', " if bench.variant == "b" else ""
            other.execute(
                f"INSERT INTO audio_tasks ({own}spotify_track_id, task_type) "
                f"VALUES ({values}'t2', 'align')"
            )
        else:
            other.execute("SELECT FROM audio_tasks WHERE spotify_track_id = 't2' FOR UPDATE")
        run = plan.apply(confirm=plan.token)
        other.rollback()
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (3, 1)
    assert list(run.dropped().reason) == ["still locked by another session after 6 turns"]
    again = getattr(operable(bench.url), f"plan_{action}")(tasks="align").apply(max_rows=1)
    assert again.row["rows_done"] == 1


def test_a_row_that_is_unlocked_in_time_is_done_in_a_later_turn(bench: Bench) -> None:
    tracks = many(bench, "audio_ready", "align", 4)
    queue = operable(bench.url)
    plan = queue.plan_backfill()
    other = psycopg.connect(bench.url)
    other.execute("SELECT FROM tracks WHERE spotify_track_id = 't2' FOR UPDATE")
    real = apply._Pace.rest

    def rest(pace: Any, seconds: float) -> None:  # the batch without t2 is committed by now
        other.rollback()
        real(pace, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply._Pace, "rest", rest)
        run = plan.apply(confirm=plan.token)
    other.close()
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (4, 0)
    assert pending(bench, "align") == tracks


def test_pipelines_of_other_names_have_runs_of_their_own(bench: Bench, tmp_path: Path) -> None:
    assert pipeline.load().name == "karaoke"
    file = tmp_path / "other.yaml"
    file.write_text(
        Path("params/pipelines/karaoke.yaml").read_text().replace("name: karaoke", "name: other", 1)
    )
    many(bench, "audio_ready", "align", 3)
    operable(bench.url).plan_backfill().apply(max_rows=3)
    operable(bench.url, file).plan_backfill().apply(max_rows=3)
    found = operable(bench.url).runs()
    assert list(zip(found.run, found.pipeline, found.rows_done, strict=True)) == [
        (2, "other", 0),
        (1, "karaoke", 3),
    ]
