"""Worker processes as the application has them (DESIGN section 2), and what each of them met. Each
sees to its own share of the tracks, so that alone at the table none meets an error."""

import contextlib
import os
import random
import select
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg

from conftest import STAGE_OF
from processes import children

STEPS = {stage: task for task, stage in STAGE_OF.items()}
SELECT = """
    SELECT t.spotify_track_id, a.id IS NOT NULL
    FROM tracks t
    LEFT JOIN audio_tasks a ON a.{owner} = t.spotify_track_id AND a.task_type = %(task)s {ours}
    WHERE t.stage = %(stage)s
      AND (a.id IS NULL OR (a.status IN ('pending', 'failed') AND a.attempts < a.max_attempts
                            AND (a.next_retry_at IS NULL OR a.next_retry_at <= now())))
      AND mod(abs(hashtext(t.spotify_track_id)), %(of)s) = %(number)s
    {order} LIMIT 1
"""
ENSURE = {
    "a": "INSERT INTO audio_tasks (spotify_track_id, task_type) VALUES (%(track)s, %(task)s)",
    "b": "INSERT INTO audio_tasks (subject_type, subject_id, spotify_track_id, task_type) "
    "VALUES ('track', %(track)s, %(track)s, %(task)s)",
}
MINE = "spotify_track_id = %(track)s AND task_type = %(task)s"
START = f"""
    UPDATE audio_tasks SET status = 'running', attempts = attempts + 1, last_attempt_at = now()
    WHERE {MINE}
"""
COMPLETE = f"""
    UPDATE audio_tasks SET status = 'completed', completed_at = now(), processing_duration_ms = 7
    WHERE {MINE}
"""
FAIL = f"""
    UPDATE audio_tasks SET status = 'failed', error_message = 'timeout of the model',
        next_retry_at = CASE WHEN attempts < max_attempts
            THEN now() + make_interval(mins => (ARRAY[5, 15, 30])[least(attempts, 3)]) END
    WHERE {MINE}
"""
COMPLETED = """
    SELECT task_type FROM audio_tasks WHERE spotify_track_id = %(track)s AND status = 'completed'
"""
MOVE = "UPDATE tracks SET stage = %(stage)s WHERE spotify_track_id = %(track)s"


def derived_stage(completed: set[str]) -> str:
    """The stage after the last completed task."""
    stages = [*STEPS, "ready"]
    done = [i for i, task in enumerate(STEPS.values()) if task in completed]
    return stages[max(done) + 1]


@dataclass
class Worker:
    connection: psycopg.Connection[Any]  # autocommit: each statement is a transaction
    variant: str
    number: int = 0
    of: int = 1
    think: float = 0.0  # seconds of work on a task
    chance: random.Random = field(default_factory=random.Random)
    errors: list[tuple[str, str]] = field(default_factory=list)  # (step, sqlstate or what)
    claims: list[float] = field(default_factory=list)  # seconds to select, ensure and start
    completed: int = 0
    ordered: bool = True  # select in order of arrival; else any

    @property
    def _select(self) -> str:
        return SELECT.format(
            owner="spotify_track_id" if self.variant == "a" else "subject_id",
            ours="" if self.variant == "a" else "AND a.subject_type = 'track'",
            order="ORDER BY coalesce(a.created_at, t.updated_at)" if self.ordered else "",
        )

    def step(self, stage: str | None = None) -> bool:
        """Take one task from selection to its end; False where there was nothing to take."""
        stage = stage or self.chance.choice(list(STEPS))
        names = {"stage": stage, "task": STEPS[stage], "of": self.of, "number": self.number}
        began = time.perf_counter()
        found = self._run("select", self._select, names)
        if not found:
            return False
        track, has_row = found[0]
        names["track"] = track
        if not has_row and self._run("ensure", ENSURE[self.variant], names) is None:
            return True  # somebody has made the row meanwhile: the application logs it and goes on
        if not self._run("start", START, names):
            return True
        self.claims.append(time.perf_counter() - began)
        if self.think:
            time.sleep(self.think)  # the work itself
        if self.chance.random() < 0.15:
            self._run("fail", FAIL, names)
            return True
        self._run("complete", COMPLETE, names)
        self.completed += 1
        done = self._run("derive", COMPLETED, names)
        if done:
            stage = derived_stage({task for (task,) in done})
            self._run("move", MOVE, {"stage": stage, "track": track})
        return True

    def _run(self, step: str, statement: str, names: dict[str, Any]) -> Any:
        """Rows, or how many were changed; None after an error, which is kept."""
        try:
            cursor = self.connection.execute(statement, names)
        except psycopg.Error as error:
            self.errors.append((step, error.sqlstate or str(error)))
            return None
        if cursor.rowcount == 0 and not cursor.description:
            self.errors.append((step, "gone"))
        return cursor.fetchall() if cursor.description else cursor.rowcount


@contextlib.contextmanager
def crew(
    url: str,
    variant: str,
    size: int,
    think: float = 0.0,
    stages: Sequence[str] = tuple(STEPS),
    ordered: bool = True,
) -> Iterator[list[dict[str, Any]]]:
    """*size* worker processes while the block runs; afterwards the list has what each met."""
    met: list[dict[str, Any]] = []
    told, tell = os.pipe()  # closed when it is time to end

    def work(number: int) -> dict[str, Any]:
        os.close(tell)  # or this one would keep it open
        with psycopg.connect(url, autocommit=True, application_name="worker") as connection:
            worker = Worker(connection, variant, number, size, think, ordered=ordered)
            worker.chance.seed(number)
            while not select.select([told], [], [], 0)[0]:
                worker.step(worker.chance.choice(stages))
        return {name: getattr(worker, name) for name in ("errors", "claims", "completed")}

    with children() as start:
        workers = [start(partial(work, number)) for number in range(size)]
        try:
            yield met
        finally:
            os.close(tell)
            results = [worker.result() for worker in workers]
            os.close(told)
        assert all("value" in result for result in results), results
        met += [result["value"] for result in results]
