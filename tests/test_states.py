"""The states, against models written from the definitions: one in Python, one in plain SQL.

Each example is loaded and read in one transaction, so that ``now()`` is the same for both and
times can stand exactly on a limit; it is rolled back, so that the next one starts empty.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from conftest import FORKED, STAGE_OF, TASKS, Bench
from fuzzing import cases
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue
from queue_insights.reads import STATES
from queue_insights.schema import Schema
from queue_insights.sql.frames import fetch, query

MINUTE, HOUR, FOREVER = 60, 3600, "infinity"
STAGES = ["pending", *STAGE_OF.values(), "ready", "failed"]
Offset = int | str | None  # seconds from now(), infinity, or null


@dataclass(frozen=True)
class Row:
    """A task row; times as offsets from now()."""

    track: str
    task_type: str
    status: str | None
    attempts: int | None
    max_attempts: int | None
    next_retry_at: Offset
    last_attempt_at: Offset
    created_at: Offset
    completed_at: Offset
    subject_type: str = "track"


@dataclass(frozen=True)
class Example:
    stages: dict[str, str | None] = field(default_factory=dict)
    updated_at: dict[str, Offset] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def row(self, track: str, task: str) -> Row | None:
        found = [r for r in self.ours if (r.track, r.task_type) == (track, task)]
        return found[0] if found else None

    @property
    def ours(self) -> list[Row]:
        return [row for row in self.rows if row.subject_type == "track"]


TIMES = [None, 0, -1, -29 * MINUTE, -30 * MINUTE, -30 * MINUTE - 1, -2 * HOUR, -2 * HOUR - 1]
RETRIES = [None, None, -HOUR, 0, 1, HOUR, FOREVER, f"-{FOREVER}"]
DONE = [None, None, *TIMES]
STATUSES = ["pending", "failed", "running", "completed", "skipped", "weird", "", None]
ATTEMPTS = [*[(0, 3), (2, 3)] * 3, (3, 3), (4, 3), (0, 0), (None, 3), (0, None), (None, None)]


@st.composite
def rows(draw: st.DrawFn, track: str, task: str, subject_type: str = "track") -> Row:
    status, attempts, *times = (
        draw(st.sampled_from(each))
        for each in (STATUSES[:3] * 2 + STATUSES, ATTEMPTS, RETRIES, [*TIMES, HOUR], TIMES, DONE)
    )
    return Row(track, task, status, *attempts, *times, subject_type)


@st.composite
def examples(draw: st.DrawFn, variant: str, name: str) -> Example:
    """Up to ten tracks, most with rows for what is due or leads there, some with others."""
    steps = STEPS[name].items()
    stages = draw(st.lists(st.sampled_from([None, *STAGES, *STAGES[1:5] * 2]), max_size=10))
    named = {f"{'tT'[i % 2]}{i}": stage for i, stage in enumerate(stages)}
    found = []
    for track, stage in named.items():
        due = [(task, leading) for task, (at, _, leading) in steps if at == stage]
        tasks = {task for task, _ in due} | {task for _, leading in due for task in leading}
        for task in sorted(tasks):
            if draw(st.integers(0, 3)):
                found.append(draw(rows(track, task)))
        other = draw(st.sampled_from([None, *TASKS]))
        if other and other not in tasks:
            found.append(draw(rows(track, other)))
        if variant == "b":
            for task in draw(st.sets(st.sampled_from(TASKS), max_size=2)):
                found.append(draw(rows(track, task, "tiktok_video")))
    return Example(named, {track: draw(st.sampled_from(TIMES)) for track in named}, tuple(found))


def load(connection: sa.Connection, variant: str, example: Example) -> None:
    """Insert the example in two statements; an offset becomes a time in SQL."""
    rows = sa.bindparam("rows", type_=sa.dialects.postgresql.JSONB)
    tracks = [
        {"id": track, "stage": stage, "updated_at": example.updated_at[track]}
        for track, stage in example.stages.items()
    ]
    of_track = f"""
        INSERT INTO tracks (spotify_track_id, title, artists, stage, updated_at)
        SELECT id, 'Song ' || id, '[]', stage, {at("updated_at")}
        FROM jsonb_to_recordset(:rows) AS r (id text, stage text, updated_at text)
    """
    connection.execute(sa.text(of_track).bindparams(rows), {"rows": tracks})
    times = ("next_retry_at", "last_attempt_at", "created_at", "completed_at")
    same = "task_type, status, attempts, max_attempts"
    subject, value = (", subject_type, subject_id", ", subject_type, track")
    of_task = f"""
        INSERT INTO audio_tasks (spotify_track_id, {same}, {", ".join(times)}
                                 {subject if variant == "b" else ""})
        SELECT CASE WHEN subject_type = 'track' THEN track END, {same}, {", ".join(map(at, times))}
               {value if variant == "b" else ""}
        FROM jsonb_to_recordset(:rows) AS r (
            track text, task_type text, status text, attempts int, max_attempts int,
            {" text, ".join(times)} text, subject_type text)
    """
    found = [vars(row) for row in example.rows]
    connection.execute(sa.text(of_task).bindparams(rows), {"rows": found})


def at(column: str) -> str:
    return (
        f"CASE WHEN {column} LIKE '%inf%' THEN {column}::timestamptz "
        f"ELSE now() + make_interval(secs => {column}::float8) END"
    )


def expected_state(row: Row | None, stuck_after: timedelta) -> str:
    """The table of states, in its own words."""
    if row is None:
        return "missing"
    if row.status in ("pending", "failed"):
        if row.attempts is None or row.max_attempts is None or row.attempts >= row.max_attempts:
            return "exhausted"
        retry = row.next_retry_at
        if retry == FOREVER or (isinstance(retry, int) and retry > 0):
            return "backing_off"
        return {"pending": "pending", "failed": "retryable"}[row.status]
    if row.status == "running":
        started = row.last_attempt_at
        within = isinstance(started, int) and abs(started) <= stuck_after.total_seconds()
        return "running" if within else "stuck"
    return {"completed": "drifted", "skipped": "skipped"}.get(row.status or "", "other")


def arrived(now: datetime, example: Example, name: str, track: str, task: str) -> datetime | None:
    """The last completion of a task that leads here, else the row's creation, else the track's
    last update."""
    leading, row = STEPS[name][task][2], example.row(track, task)
    before = [found.completed_at for task in leading if (found := example.row(track, task))]
    completed = [at for at in before if isinstance(at, int)]
    created = row.created_at if row else None
    fallback = example.updated_at[track] if created is None else created
    offset = max(completed) if completed else fallback
    return now + timedelta(seconds=offset) if isinstance(offset, int) else None


# Per pipeline and task: the stage, stuck_after, and the tasks that lead to the stage.
HALF, TWO = timedelta(minutes=30), timedelta(hours=2)
STEPS: dict[str, dict[str, tuple[str, timedelta, Sequence[str]]]] = {
    "karaoke": {
        task: (stage, HALF, TASKS[max(i - 1, 0) : i])
        for i, (task, stage) in enumerate(STAGE_OF.items())
    },
    "forked": {
        "download": ("lyrics_acquired", TWO, ()),
        "align": ("audio_ready", TWO, ("download",)),
        "translate": ("audio_ready", HALF, ("download",)),
        "segment": ("translated", TWO, ("align", "translate")),
    },
}

WORKER = sa.text("""
    SELECT t.spotify_track_id FROM tracks t
    WHERE t.stage = :stage AND (
        NOT EXISTS (SELECT FROM audio_tasks k
                    WHERE k.spotify_track_id = t.spotify_track_id AND k.task_type = :task)
        OR EXISTS (SELECT FROM audio_tasks k
                   WHERE k.spotify_track_id = t.spotify_track_id AND k.task_type = :task
                     AND k.status IN ('pending', 'failed') AND k.attempts < k.max_attempts
                     AND (k.next_retry_at IS NULL OR k.next_retry_at <= now())))
""")
# A video's row has no spotify_track_id, so these need not name subject_type to leave it out.
VISIBLE = sa.text("""
    SELECT count(*) FROM audio_tasks
    WHERE task_type = :task AND status = 'pending' AND spotify_track_id IS NOT NULL
""")
NOW = sa.text("SELECT now()")
ORPHANS = sa.text("""
    SELECT k.spotify_track_id FROM audio_tasks k
    JOIN tracks t ON t.spotify_track_id = k.spotify_track_id
    WHERE k.task_type = :task AND k.status IN ('pending', 'failed')
      AND coalesce(t.stage, 'no stage') <> :stage
""")


# Those that say what is here now, without a limit.
NOWADAYS = ("backlog", "audit", "tasks", "missing", "upcoming", "orphans")


@dataclass
class World:
    """A database that takes any status and a null stage, with the tables of both pipelines."""

    variant: str
    database: Database
    schemas: dict[str, Schema]

    def frames(self, connection: sa.Connection, name: str) -> dict[str, pd.DataFrame]:
        now = datetime.now(UTC)  # which none of these asks for
        given = {"upcoming": {"limit": None}}
        return {
            read: fetch(connection, query(self.schemas[name], now, read, **given.get(read, {})))
            for read in NOWADAYS
        }


@pytest.fixture
def world(bench: Bench, tmp_path: Path) -> World:
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_status_check")
    bench.sql("ALTER TABLE tracks ALTER stage DROP NOT NULL")
    file = tmp_path / "forked.yaml"
    file.write_text(FORKED)
    pipelines = {"karaoke": pipeline.load(), "forked": pipeline.load(file)}
    database = bench.queue.database
    schemas = {name: Queue(database, each).schema for name, each in pipelines.items()}
    return World(bench.variant, database, schemas)


@cases(20)
@given(data=st.data(), name=st.sampled_from(list(STEPS)))
def test_a_random_queue_reads_as_the_definitions_say(
    world: World, data: st.DataObject, name: str
) -> None:
    example = data.draw(examples(world.variant, name))
    with world.database.write() as connection:
        load(connection, world.variant, example)
        frames = world.frames(connection, name)
        states_partition_the_tracks(example, name, frames)
        upcoming_is_in_order_of_arrival(connection, example, name, frames)
        audit_and_lists_agree_with_plain_sql(connection, example, name, frames)
        oldest_waiting_is_the_longest_wait(connection, example, name, frames)
        connection.rollback()


Frames = dict[str, pd.DataFrame]


def expected_states(example: Example, name: str) -> dict[tuple[str, str], str]:
    return {
        (track, task): expected_state(example.row(track, task), stuck_after)
        for task, (stage, stuck_after, _) in STEPS[name].items()
        for track, stands_at in example.stages.items()
        if stands_at == stage
    }


def states_partition_the_tracks(example: Example, name: str, frames: Frames) -> None:
    listed, backlog = frames["tasks"], frames["backlog"].set_index("task_type")
    expected = expected_states(example, name)
    pairs = list(zip(listed.spotify_track_id, listed.task_type, strict=True))
    assert len(set(pairs)) == len(pairs)
    assert dict(zip(pairs, listed.state, strict=True)) == expected
    assert list(backlog.index) == list(STEPS[name])
    counted = Counter((task, state) for (_, task), state in expected.items())
    stands_at = Counter(example.stages.values())
    for task, (stage, _, _) in STEPS[name].items():
        n = backlog.loc[task]
        assert n.stage == stage
        assert n.total == n[list(STATES)].sum() == stands_at[stage]
        assert {s: n[s] for s in STATES} == {s: counted[task, s] for s in STATES}
        assert n.eligible == n.missing + n.pending + n.retryable
        assert n.waiting == n.eligible + n.backing_off


def upcoming_is_in_order_of_arrival(
    connection: sa.Connection, example: Example, name: str, frames: Frames
) -> None:
    now = connection.execute(NOW).scalar_one()
    expected = [
        (arrived(now, example, name, track, task), track, task)
        for (track, task), state in expected_states(example, name).items()
        if state in ("missing", "pending", "retryable")
    ]
    expected.sort(key=lambda row: (row[0] is None, row[0] or now, *row[1:]))  # null last
    found = frames["upcoming"][["arrived_at", "spotify_track_id", "task_type"]].astype(object)
    assert [*map(tuple, found.where(found.notna(), None).to_numpy())] == expected


def audit_and_lists_agree_with_plain_sql(
    connection: sa.Connection, example: Example, name: str, frames: Frames
) -> None:
    audit, backlog = (frames[read].set_index("task_type") for read in ("audit", "backlog"))
    assert list(audit.index) == list(STEPS[name])
    for task, (stage, _, _) in STEPS[name].items():
        listed = {
            read: sorted(frames[read].spotify_track_id[frames[read].task_type == task])
            for read in ("missing", "orphans", "upcoming")
        }
        values = {"task": task, "stage": stage}
        missing = sorted(
            track
            for track, stands_at in example.stages.items()
            if stands_at == stage and example.row(track, task) is None
        )
        orphans, selected = (sorted(connection.scalars(each, values)) for each in (ORPHANS, WORKER))
        visible = connection.scalar(VISIBLE, values)
        assert listed == {"missing": missing, "orphans": orphans, "upcoming": selected}
        assert audit.loc[task].to_dict() == {
            **{"stage": stage, "eligible": len(selected), "visible": visible},
            **{"hidden": len(missing), "orphans": len(orphans)},
            "verdict": "hidden" if missing else "overstated" if orphans else "visible",
        }
        n = backlog.loc[task]
        assert (n.eligible, n.visible, n.missing) == (len(selected), visible, len(missing))


def oldest_waiting_is_the_longest_wait(
    connection: sa.Connection, example: Example, name: str, frames: Frames
) -> None:
    now = connection.execute(NOW).scalar_one()
    waiting: dict[str, list[float]] = {task: [] for task in STEPS[name]}
    for (track, task), state in expected_states(example, name).items():
        time = arrived(now, example, name, track, task)
        if time and state in ("missing", "pending", "retryable", "backing_off"):
            waiting[task].append((now - time).total_seconds())
    expected = [max(ages, default=None) for ages in waiting.values()]
    found = frames["backlog"].oldest_waiting_seconds
    assert [None if pd.isna(age) else age for age in found] == expected
