"""Random sequences of worker steps, outside changes, actions and undos, on both variants.

An action takes exactly the rows that DESIGN section 3 says, no more than asked for, in order of
arrival, makes of them what its plan said, and touches nothing else. Its undo puts back what is as
the run had left it, and nothing else.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from conftest import Bench
from fuzzing import cases
from operating import operable, rows, video
from queue_insights.queue import Queue
from workers import STEPS, Worker

TASK_AT = dict(list(STEPS.items())[:3])  # three steps are enough, and quicker
STAGES = (*TASK_AT, "translated", "ready")
PREVIOUS = ("none", *TASK_AT.values())
DUE = ", ".join(
    f"({i}, '{stage}', '{task}', '{PREVIOUS[i]}')"
    for i, (stage, task) in enumerate(TASK_AT.items())
)
ARRIVAL = """coalesce((SELECT max(completed_at) FROM audio_tasks p
    WHERE p.spotify_track_id = t.spotify_track_id AND p.task_type = due.previous),
    a.created_at, t.updated_at)"""
LEFT = "a.attempts < a.max_attempts"
# Which rows (by track and task) each action takes: the table of states, in plain SQL.
TAKES = {
    "backfill": "t.stage = due.stage AND a.id IS NULL",
    "reset": "t.stage = due.stage AND a.status = 'running' AND (a.last_attempt_at IS NULL "
    "OR a.last_attempt_at < now() - interval '30 minutes')",
    "retry": f"t.stage = due.stage AND (a.status = 'failed' OR a.status = 'pending' AND ({LEFT}) "
    "IS NOT TRUE)",
    "requeue": "t.stage = due.stage AND a.status = 'completed'",
    "prune": "t.stage <> due.stage AND a.status = 'pending'",
    "prune failed": "t.stage <> due.stage AND a.status = 'failed'",
}
FOUND = f"""
    SELECT t.spotify_track_id, due.task, a.id, {ARRIVAL} AS arrived
    FROM tracks t CROSS JOIN (VALUES {DUE}) AS due (position, stage, task, previous)
    LEFT JOIN audio_tasks a ON a.spotify_track_id = t.spotify_track_id AND a.task_type = due.task
    WHERE {{takes}} ORDER BY arrived, 1, due.position
"""
# What a row may be at first: SQL for status, attempts, last_attempt_at and the like.
ROWS = {
    "fresh pending": ("pending", {}),
    "exhausted": ("failed", {"attempts": 3}),
    "null attempts": ("pending", {"attempts": None}),
    "null limit": ("failed", {"attempts": 1, "max_attempts": None}),
    "retryable": ("failed", {"attempts": 1}),
    "running": ("running", {"attempts": 1, "last_attempt_at": "now"}),
    "stuck": ("running", {"attempts": 2, "last_attempt_at": "2026-01-01Z"}),
    "stuck at the limit": ("running", {"attempts": 4, "last_attempt_at": None}),
    "completed": ("completed", {"attempts": 1, "completed_at": "2026-01-02Z"}),
}


class QueueUnderActions(RuleBasedStateMachine):
    bench: Bench
    queue: Queue

    def __init__(self) -> None:
        super().__init__()
        # Runs, with the rows that each changed as they were before it and after.
        self.done: list[tuple[Any, dict[int, str], dict[int, str]]] = []
        self.tracks: list[str] = []
        self.videos: list[Any] = []

    @initialize()
    def begin(self) -> None:
        self.bench.connection.execute(
            "DROP SCHEMA IF EXISTS queue_insights CASCADE; TRUNCATE audio_tasks, tracks CASCADE"
        )
        for task in ("align", "clip"):
            video(self.bench, task, "pending")
            video(self.bench, task, "running")
        self.videos = self._videos()

    def _videos(self) -> list[Any]:
        return self.bench.sql("SELECT t::text FROM audio_tasks t WHERE spotify_track_id IS NULL")

    @rule(stage=st.sampled_from(STAGES), minutes=st.integers(0, 5), count=st.integers(1, 3))
    def arrive(self, stage: str, minutes: int, count: int) -> None:
        for _ in range(count):
            self.tracks.append(f"t{len(self.tracks):03}")
            self.bench.sql(
                "INSERT INTO tracks (spotify_track_id, title, artists, stage, updated_at) VALUES "
                "(%s, 'Song', '[]', %s, timestamptz '2026-01-03Z' + make_interval(mins => %s))",
                self.tracks[-1],
                stage,
                minutes,
            )

    @precondition(lambda self: self.tracks)
    @rule(data=st.data(), kind=st.sampled_from(sorted(ROWS)), task=st.sampled_from(PREVIOUS[1:]))
    def somebody_writes_a_row(self, data: st.DataObject, kind: str, task: str) -> None:
        track = data.draw(st.sampled_from(self.tracks))
        self.bench.sql(
            "DELETE FROM audio_tasks WHERE spotify_track_id = %s AND task_type = %s", track, task
        )
        status, columns = ROWS[kind]
        self.bench.task(track, task, status, **columns)

    @precondition(lambda self: self.tracks)
    @rule(data=st.data(), stage=st.sampled_from(STAGES))
    def somebody_moves_a_track(self, data: st.DataObject, stage: str) -> None:
        track = data.draw(st.sampled_from(self.tracks))
        self.bench.sql("UPDATE tracks SET stage = %s WHERE spotify_track_id = %s", stage, track)

    @rule(stage=st.sampled_from([*TASK_AT]), seed=st.integers(0, 99), steps=st.integers(1, 4))
    def workers_work(self, stage: str, seed: int, steps: int) -> None:
        chance = random.Random(seed)
        worker = Worker(self.bench.connection, self.bench.variant, chance=chance)
        for _ in range(steps):
            worker.step(stage)
        assert worker.errors == []

    @rule(hours=st.sampled_from([1, 5]))
    def time_passes(self, hours: int) -> None:
        self.bench.sql(
            f"UPDATE audio_tasks SET last_attempt_at = last_attempt_at - interval '{hours} hours', "
            f"next_retry_at = next_retry_at - interval '{hours} hours' "
            "WHERE spotify_track_id IS NOT NULL"
        )

    @rule(
        action=st.sampled_from(sorted(TAKES)),
        limit=st.none() | st.integers(1, 3),
        attempts=st.sampled_from(["refund", "keep", "zero"]),
        by_token=st.booleans(),
    )
    def act(self, action: str, limit: int | None, attempts: str, by_token: bool) -> None:
        name = action.split()[0]
        options: dict[str, Any] = {"limit": limit}
        if action == "prune failed":
            options["status"] = "failed"
        if action == "reset":
            options["attempts"] = attempts
        found = self.bench.sql(FOUND.format(takes=TAKES[action]))[:limit]
        before = rows(self.bench.connection)
        tracks = self.bench.sql("SELECT * FROM tracks ORDER BY 1")
        plan = getattr(self.queue, f"plan_{name}")(**options)
        assert plan.rows == len(found)
        given = {"confirm": plan.token} if by_token else {"max_rows": len(found)}
        run = plan.apply(pause=0, **given)
        counts = (run.state, run.row["rows_done"], run.row["rows_dropped"])
        assert counts == ("finished", len(found), 0)
        after = rows(self.bench.connection)
        changed = {id for id in before.keys() | after.keys() if before.get(id) != after.get(id)}
        if name == "backfill":
            assert not changed & before.keys()
            made = "SELECT spotify_track_id, task_type, created_at, status, attempts, max_attempts "
            expected = {(track, task, at, "pending", 0, 3) for track, task, _, at in found}
            made = f"{made} FROM audio_tasks WHERE id = ANY(%s)"
            assert set(self.bench.sql(made, list(changed))) == expected
        else:
            assert changed == {id for _, _, id, _ in found}
        assert changed & after.keys() == (set() if name == "prune" else changed)
        assert self.bench.sql("SELECT * FROM tracks ORDER BY 1") == tracks
        was, became = ({id: of[id] for id in changed & of.keys()} for of in (before, after))
        self.done.append((run, was, became))

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        run, before, after = self.done.pop(-data.draw(st.integers(1, len(self.done))))
        now = rows(self.bench.connection)
        changed = before.keys() | after.keys()
        back = {id for id in changed if now.get(id) == after.get(id)}
        back -= {id for id in before.keys() - after.keys() if self._is_taken(before[id])}
        run.undo(pause=0)
        expected = {id: row for id, row in now.items() if id not in back}
        expected |= {id: before[id] for id in back & before.keys()}
        assert rows(self.bench.connection) == expected
        kept = len(changed - back)
        counts = (run.state, run.row["rows_undone"], run.row["rows_kept"], len(run.kept()))
        assert counts == ("undone", len(back), kept, kept)

    def _is_taken(self, removed: str) -> bool:
        """Whether another row has taken the place of a removed one."""
        taken = (
            "SELECT 1 FROM audio_tasks a, (SELECT %s::jsonb r) x "
            "WHERE (task_type, spotify_track_id) = (r->>'task_type', r->>'spotify_track_id')"
        )
        return bool(self.bench.sql(taken, removed[: removed.rindex("}") + 1]))

    @invariant()
    def videos_are_never_touched(self) -> None:
        assert self._videos() == self.videos

    @invariant()
    def no_run_is_left_unfinished(self) -> None:
        assert not self.done or not self.bench.sql("SELECT 1 FROM queue_insights.targets")


@pytest.mark.hypothesis
def test_actions_and_undo_hold_their_invariants(bench: Bench, tmp_path: Path) -> None:
    shipped = yaml.safe_load(Path("params/pipelines/karaoke.yaml").read_text())
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump(shipped | {"steps": shipped["steps"][: len(TASK_AT)]}))
    machine: Callable[[], RuleBasedStateMachine] = type(
        "Machine", (QueueUnderActions,), {"bench": bench, "queue": operable(bench.url, file)}
    )
    run_state_machine_as_test(machine, settings=settings(cases(3), stateful_step_count=20))
