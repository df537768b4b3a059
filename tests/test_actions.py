"""What the five actions make of rows, and how they are narrowed down. Which rows each action takes,
how many and in which order, is what test_actions_stateful is about."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from conftest import Bench
from operating import edited, everything, give_rows, many, operable, pending, video

LONG_AGO = sql.SQL("now() - interval '5 hours'")


def test_the_incident_is_repaired_50_at_the_stage_0_pending_before_50_after(bench: Bench) -> None:
    in_order = many(bench, "audio_ready", 50)
    video(bench, "align")
    queue = operable(bench.url)
    before = queue.backlog().set_index("task_type").loc["align"]
    sources = ["visible", "get_pending_tasks", "task_summary", "audio_progress"]

    def seen() -> list[int]:
        """How many of the incident's 50 are hidden, and what each dashboard source counts."""
        audit = queue.audit(sources=True).set_index("task_type")
        return [int(number) for number in audit.loc["align", ["hidden", *sources]]]

    videos = int(bench.variant == "b")  # which the application's task_summary counts
    assert seen() == [50, 0, 0, videos, 0]
    arrived = queue.missing("align").arrived_at.min()
    written = everything(bench.connection)

    age = queue.as_of - arrived - timedelta(seconds=30)  # since arrival: nothing was attempted
    assert list(queue.plan_backfill(older_than=age).preview().spotify_track_id) == in_order[:1]
    plan = queue.plan_backfill(tasks=["align"])
    assert plan.counts.to_dict("records") == [
        {
            **{"stage": "audio_ready", "task_type": "align", "rows": 50},
            **{"ends_pending": 50, "ends_exhausted": 0},
        }
    ]
    assert [str(t) for t in plan.counts.dtypes] == ["str", "str", "int64", "int64", "int64"]
    preview = plan.preview(7)
    assert list(preview.spotify_track_id) == in_order[:7]
    assert [str(t) for t in preview.dtypes] == [
        *("str", "str", "str", "str", "datetime64[us, UTC]"),
        *("str", "str", "Int64", "Int64", "str", "Int64", "Int64"),
    ]
    assert everything(bench.connection) == written
    run = plan.apply(confirm=plan.token)

    assert (run.state, run.row["rows_done"], run.row["rows_dropped"]) == ("finished", 50, 0)
    assert pending(bench, "align") == in_order
    with queue.snapshot() as moment:
        backlog = queue.backlog().set_index("task_type").loc["align"]
        age = (moment.as_of - arrived).total_seconds()
    assert (before.missing, before.pending, backlog.missing, backlog.pending) == (50, 0, 0, 50)
    assert backlog.oldest_waiting_seconds == pytest.approx(age, abs=1e-3)
    assert seen() == [0, 50, 50, 50 + videos, 50]


def test_backfilled_rows_are_as_the_applications_own(bench: Bench, tmp_path: Path) -> None:
    step = "stage: aligned, task: translate"
    file = edited(tmp_path, step, f"{step}, max_attempts: 7")
    give_rows(bench, [bench.track("made", "audio_ready")], "align", "pending")
    bench.track("ours", "audio_ready")
    bench.track("other step", "aligned")
    plan = operable(bench.url, file).plan_backfill()
    assert sorted(plan.preview().max_attempts_after) == [3, 7]
    plan.apply(confirm=plan.token)
    made, ours, other = bench.sql(
        "SELECT to_jsonb(a) - '{id,spotify_track_id,subject_id,created_at,updated_at}'::text[] "
        "FROM audio_tasks a ORDER BY task_type, spotify_track_id"
    )
    assert made == ours
    assert other[0] == {**ours[0], "task_type": "translate", "max_attempts": 7}
    times = "SELECT a.created_at = t.updated_at FROM audio_tasks a JOIN tracks t "
    times += "USING (spotify_track_id) WHERE spotify_track_id = 'ours'"
    assert bench.sql(times) == [(True,)]


# attempts and max_attempts of rows, and what each choice makes of them.
HAD = [(1, 3), (3, 3), (5, 3), (0, 3), (None, 3), (2, None), (2, 0), (9, 9)]
ENDS: dict[str, list[tuple[int | None, int | None]]] = {
    "refund": [(0, 3), (2, 3), (4, 3), (0, 3), (0, 3), (1, 3), (1, 3), (8, 9)],
    "keep": HAD,
    "zero": [(0, 3)] * 7 + [(0, 9)],
}


@pytest.mark.parametrize(
    ("action", "status", "choice"),
    [
        *(("reset", "running", choice) for choice in ENDS),
        *(("retry", "failed", "zero"), ("requeue", "completed", "zero")),
    ],
)
def test_plans_say_how_rows_end(bench: Bench, action: str, status: str, choice: str) -> None:
    for i, (had, most) in enumerate(HAD):
        columns = {"attempts": had, "max_attempts": most, "processing_duration_ms": 9}
        times = dict.fromkeys(("last_attempt_at", "next_retry_at", "completed_at"), LONG_AGO)
        track = bench.track(f"t{i}", "audio_ready")
        bench.task(track, "align", status, **columns, **times)
    queue = operable(bench.url)
    plan = queue.plan(action, tasks="align", **({"attempts": choice} if action == "reset" else {}))
    shown = plan.preview(50).sort_values("spotify_track_id")
    shown = shown[["attempts_after", "max_attempts_after"]].astype(object)
    expected = ENDS[choice]
    assert list(shown.where(shown.notna(), None).itertuples(False, None)) == expected
    usable = sum(None not in (a, m) and a < m for a, m in expected)  # type: ignore[operator]
    counts = plan.counts.iloc[0]
    assert (counts.ends_pending, counts.ends_exhausted) == (usable, len(HAD) - usable)

    plan.apply(confirm=plan.token)
    assert bench.sql(
        "SELECT status, attempts, max_attempts FROM audio_tasks WHERE next_retry_at IS NULL "
        "AND (completed_at IS NULL AND processing_duration_ms IS NULL OR %s) ORDER BY id",
        action != "requeue",
    ) == [("pending", *pair) for pair in expected]
    backlog = queue.backlog().set_index("task_type").loc["align"]
    assert (backlog.pending, backlog.exhausted) == (usable, len(HAD) - usable)


NARROWED = {"reset": "running", "retry": "failed", "requeue": "completed", "prune": "pending"}


@pytest.mark.parametrize(("action", "status"), NARROWED.items())
def test_actions_narrow_down(bench: Bench, action: str, status: str) -> None:
    stage = "enriched" if action == "prune" else "audio_ready"

    def row(name: str, hours: int, error: str | None = None) -> None:
        attempted = sql.SQL(f"now() - interval '{hours} hours'")
        arrived = sql.SQL(f"now() - interval '{hours + 10} hours'")
        times = {"last_attempt_at": attempted, "created_at": arrived}
        bench.task(bench.track(name, stage), "align", status, error_message=error, **times)

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
