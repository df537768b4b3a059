"""The states, against a model written from the definitions, and the worker's rule in plain SQL.

Each example is loaded and read in one transaction, so that ``now()`` is the same for both and
times can stand exactly on a limit; it is rolled back, so that the next one starts empty.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from conftest import FORKED, STAGE_OF, TASKS, Bench
from fuzzing import cases
from operating import operable
from queue_insights.reads import STATES
from queue_insights.schema import Schema
from queue_insights.sql.frames import fetch, query

MINUTE, HOUR, FOREVER = 60, 3600, "infinity"
STAGES = ["pending", *STAGE_OF.values(), "ready", "failed"]
# Times are seconds from now(), infinity, or null.
TIMES = [None, 0, -1, -29 * MINUTE, -30 * MINUTE, -30 * MINUTE - 1, -2 * HOUR, -2 * HOUR - 1]
STATUSES = ["pending", "failed", "running", "completed", "skipped", "weird", "", None]
COLUMNS: dict[str, list[Any]] = {
    "status": STATUSES[:3] * 2 + STATUSES,
    "attempts": [0, 0, 2, 2, 2, 3, 4, None],
    "max_attempts": [3] * 7 + [0, None],
    "next_retry_at": [None, -HOUR, 0, 0, 1, HOUR, FOREVER, f"-{FOREVER}"],
    "last_attempt_at": [*TIMES, HOUR],
    "created_at": TIMES,
    "completed_at": [None, None, *TIMES],
}
ROW = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in COLUMNS.items()})
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
    SELECT t.spotify_track_id FROM tracks AS t
    LEFT JOIN audio_tasks AS k ON k.spotify_track_id = t.spotify_track_id AND k.task_type = :task
    WHERE t.stage = :stage AND (k.id IS NULL
        OR k.status IN ('pending', 'failed') AND k.attempts < k.max_attempts
           AND (k.next_retry_at IS NULL OR k.next_retry_at <= now()))
""")
ID = "spotify_track_id"
NO_LIMIT = {"upcoming": {"limit": None}}
Row = dict[str, Any]


@dataclass(frozen=True)
class Track:
    id: str
    stage: str | None
    updated_at: int | None
    rows: dict[str, Row]  # by task
    videos: dict[str, Row]  # of a video with the same id, which are not ours


@st.composite
def queues(draw: st.DrawFn, variant: str, name: str) -> list[Track]:
    """Up to ten tracks, most with rows for what is due or leads there, some with others."""
    found = []
    stages = st.lists(st.sampled_from([None, *STAGES, *STAGES[1:5] * 2]), max_size=10)
    for i, stage in enumerate(draw(stages)):
        likely = {
            each
            for task, (at, _, leading) in STEPS[name].items()
            for each in (task, *leading)
            if at == stage
        }
        rows = {
            task: draw(ROW) for task in TASKS if draw(st.integers(0, 3)) > 2 * (task not in likely)
        }
        videos = st.dictionaries(st.sampled_from(TASKS), ROW, max_size=2 * (variant == "b"))
        updated_at = draw(st.sampled_from(TIMES))
        found.append(Track(f"{'tT'[i % 2]}{i}", stage, updated_at, rows, draw(videos)))
    return found


def load(connection: sa.Connection, variant: str, tracks: list[Track]) -> datetime:
    """Insert the tracks and their rows; returns now()."""
    now: datetime = connection.execute(sa.text("SELECT now()")).scalar_one()
    standing, rows = [], []
    for track in tracks:
        of_track = {"title": "Song", "artists": "[]", "stage": track.stage}
        standing.append({ID: track.id, **of_track, "updated_at": track.updated_at})
        for subject, found in (("track", track.rows), ("tiktok_video", track.videos)):
            about = {"subject_type": subject, "subject_id": track.id} if variant == "b" else {}
            id = track.id if subject == "track" else None
            rows += [{ID: id, "task_type": task} | about | row for task, row in found.items()]
    for table, records in (("tracks", standing), ("audio_tasks", rows)):
        for record in records:
            times = {name: at for name, at in record.items() if name.endswith("_at")}
            for name, at in times.items():
                record[name] = now + timedelta(seconds=at) if isinstance(at, int) else at
        if records:
            places = ", ".join(f"%({name})s" for name in records[0])
            statement = f"INSERT INTO {table} ({', '.join(records[0])}) VALUES ({places})"
            connection.exec_driver_sql(statement, records)
    return now


def state_of(row: Row | None, stuck_after: timedelta) -> str:
    """The table of states, in its own words."""
    if row is None:
        return "missing"
    if row["status"] in ("pending", "failed"):
        attempts, most, retry = (row[c] for c in ("attempts", "max_attempts", "next_retry_at"))
        if attempts is None or most is None or attempts >= most:
            return "exhausted"
        if retry == FOREVER or (isinstance(retry, int) and retry > 0):
            return "backing_off"
        return {"pending": "pending", "failed": "retryable"}[row["status"]]
    if row["status"] == "running":
        started = row["last_attempt_at"]
        within = started is not None and abs(started) <= stuck_after.total_seconds()
        return "running" if within else "stuck"
    return {"completed": "drifted", "skipped": "skipped"}.get(row["status"] or "", "other")


def arrival(now: datetime, track: Track, task: str, leading: Sequence[str]) -> datetime | None:
    """The last completion of a task that leads here, else the row's creation, else the track's
    last update."""
    before = [track.rows[each]["completed_at"] for each in leading if each in track.rows]
    created = track.rows[task]["created_at"] if task in track.rows else None
    fallback = track.updated_at if created is None else created
    offset = max((at for at in before if at is not None), default=fallback)
    return None if offset is None else now + timedelta(seconds=offset)


@pytest.fixture
def schemas(bench: Bench, tmp_path: Path) -> dict[str, Schema]:
    """Of both pipelines, in a database that takes any status and a null stage."""
    bench.sql("ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_status_check")
    bench.sql("ALTER TABLE tracks ALTER stage DROP NOT NULL")
    file = tmp_path / "forked.yaml"
    file.write_text(FORKED)
    return {"karaoke": bench.queue.schema, "forked": operable(bench.url, file).schema}


@cases(20)
@given(data=st.data(), name=st.sampled_from(list(STEPS)))
def test_a_random_queue_reads_as_the_definitions_say(
    bench: Bench, schemas: dict[str, Schema], data: st.DataObject, name: str
) -> None:
    tracks, steps = data.draw(queues(bench.variant, name)), STEPS[name]
    with bench.queue.database.write() as connection:
        now = load(connection, bench.variant, tracks)
        frames = {
            read: fetch(connection, query(schemas[name], now, read, **NO_LIMIT.get(read, {})))
            for read in ("backlog", "audit", "tasks", "missing", "upcoming", "orphans")
        }
        selected = {
            task: set(connection.scalars(WORKER, {"task": task, "stage": stage}))
            for task, (stage, *_) in steps.items()
        }
        connection.rollback()
    states, arrived, orphans = {}, {}, set()
    for task, (stage, stuck_after, leading) in steps.items():
        for track in tracks:
            row = track.rows.get(task)
            if track.stage == stage:
                states[track.id, task] = state_of(row, stuck_after)
                arrived[track.id, task] = arrival(now, track, task, leading)
            elif row and row["status"] in ("pending", "failed"):
                orphans.add((track.id, task))
    listed = {read: pairs(frames[read]) for read in ("tasks", "missing", "upcoming", "orphans")}
    in_order = sorted(states, key=lambda at: (arrived[at] is None, arrived[at] or now, *at))
    found = dict(zip(listed["tasks"], frames["tasks"].state, strict=True))
    assert (found, len(listed["tasks"])) == (states, len(states))
    assert listed["missing"] == [at for at in in_order if states[at] == "missing"]
    assert listed["upcoming"] == [at for at in in_order if at[0] in selected[at[1]]]
    times = frames["upcoming"].arrived_at.astype(object)
    assert [*times.where(times.notna(), None)] == [arrived[at] for at in listed["upcoming"]]
    assert sorted(listed["orphans"]) == sorted(orphans)
    counts_are_those_of_the_lists(frames, steps, tracks, states, orphans)
    for task, oldest in zip(steps, frames["backlog"].oldest_waiting_seconds, strict=True):
        waiting = ("missing", "pending", "retryable", "backing_off")
        came = [arrived[at] for at in states if at[1] == task and states[at] in waiting]
        ages = [(now - each).total_seconds() for each in came if each]
        assert (None if pd.isna(oldest) else oldest) == max(ages, default=None)


Pair = tuple[str, str]


def pairs(frame: pd.DataFrame) -> list[Pair]:
    return list(zip(frame.spotify_track_id, frame.task_type, strict=True))


def counts_are_those_of_the_lists(
    frames: dict[str, pd.DataFrame],
    steps: dict[str, Any],
    tracks: list[Track],
    states: dict[Pair, str],
    orphans: set[Pair],
) -> None:
    backlog, audit = (frames[read].set_index("task_type") for read in ("backlog", "audit"))
    assert list(backlog.index) == list(audit.index) == list(steps)
    for task, (stage, *_) in steps.items():
        by_state = Counter(state for (_, at), state in states.items() if at == task)
        rows = [track.rows[task] for track in tracks if task in track.rows]
        hidden, lost = by_state["missing"], len([each for _, each in orphans if each == task])
        eligible = hidden + by_state["pending"] + by_state["retryable"]
        visible = len([row for row in rows if row["status"] == "pending"])
        assert backlog.loc[task].drop("oldest_waiting_seconds").to_dict() == {
            **{"stage": stage, "total": by_state.total()},
            **{state: by_state[state] for state in STATES},
            **{"eligible": eligible, "waiting": eligible + by_state["backing_off"]},
            "visible": visible,
        }
        assert audit.loc[task].to_dict() == {
            **{"stage": stage, "eligible": eligible, "visible": visible},
            **{"hidden": hidden, "orphans": lost},
            "verdict": "hidden" if hidden else "overstated" if lost else "visible",
        }
