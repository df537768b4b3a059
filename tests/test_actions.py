"""What the five actions do to rows: which they take, what they make of them, and what they refuse.

Expectations are DESIGN sections 3 and 5, in plain SQL or written out here.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

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
    small_batches,
    status,
    video,
)

LONG_AGO = sql.SQL("now() - interval '5 hours'")
STUCK = {"attempts": 1, "last_attempt_at": LONG_AGO}


def test_the_incident_is_repaired_50_at_the_stage_0_pending_before_50_after(bench: Bench) -> None:
    in_order = many(bench, "audio_ready", 50)
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
    small_batches(monkeypatch, chunk=3, first=1, largest=2)
    many(bench, "audio_ready", 40)
    many(bench, "aligned", 30, prefix="later")
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
    order = many(bench, "audio_ready", 30) + many(bench, "enhanced", 30, prefix="late")
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
    tracks = many(bench, "audio_ready", 5)
    oldest = bench.sql("SELECT updated_at FROM tracks WHERE spotify_track_id = %s", tracks[0])
    queue = operable(bench.url)
    age = queue.as_of - oldest[0][0] - timedelta(seconds=30)
    plan = queue.plan_backfill(older_than=age)
    assert list(plan.preview().spotify_track_id) == tracks[:1]
    plan.apply(confirm=plan.token)
    assert pending(bench, "align") == tracks[:1]


def test_a_plan_reads_only_and_previews_rows_in_order_of_arrival(bench: Bench) -> None:
    order = many(bench, "audio_ready", 30)
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
