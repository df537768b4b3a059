"""Flow, rebuilt from final rows, against the truth that a simulation wrote down hour by hour."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from conftest import STAGE_OF, Bench

TRACKS, DAYS = 600, 25
HOUR, MINUTE = 3_600_000, 60_000  # times are whole milliseconds from the start, so exact
NEVER = 10**12
BACKOFF = (5 * MINUTE, 15 * MINUTE, 30 * MINUTE)
ROW = {"status": "pending", "attempts": 0, "max_attempts": 3}
TIMES = ("created_at", "updated_at", "last_attempt_at", "next_retry_at", "completed_at")


@dataclass
class Track:
    id: str
    variant: str
    stage: str = "pending"
    updated_at: int = 0
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    at: str | None = None  # the task of the step where it truly is
    attempt: int | None = None  # when the attempt in hand began

    def came(self, task: str, now: int, with_row: bool) -> None:
        self.at, self.stage, self.updated_at = task, STAGE_OF[task], now
        if with_row:
            self.rows[task] = ROW | {"created_at": now, "updated_at": now}

    def started(self, now: int) -> dict[str, Any]:
        """A worker takes it, and makes the row where there is none."""
        row = self.rows.setdefault(str(self.at), ROW | {"created_at": now})
        self.attempt = now
        row.update(status="running", attempts=row["attempts"] + 1, last_attempt_at=now)
        row.update(updated_at=now, next_retry_at=None)
        return row

    def gone(self, stage: str, now: int) -> None:
        self.at, self.stage, self.updated_at = None, stage, now


def life(track: Track, now: int, rng: random.Random) -> Iterator[int]:
    """When something happens to a track; each is done as it is asked for the next.

    The first step's row is made on arrival, later ones as a worker starts, or on arrival: always
    then where no completion led there, or nobody could know.
    """
    yield now
    with_row = True
    for task in STAGE_OF:
        track.came(task, now, with_row)
        outcome = None
        while outcome is None:
            now += int(rng.expovariate(1 / (4 * HOUR)))
            yield now
            row, run = track.started(now), rng.randint(1, 90 * MINUTE)
            if rng.random() < 0.03:  # the worker crashes, and somebody resets the row, or not
                now += 6 * HOUR if rng.random() < 0.7 else NEVER
                yield now
                row.update(status="pending", updated_at=now)
                if row["attempts"] < 3:
                    track.attempt = None
                    continue
                run = 0
            now += run
            yield now
            track.attempt = None
            row["updated_at"] = now
            if run and rng.random() < 0.75:
                row.update(status="completed", processing_duration_ms=run, completed_at=now)
                outcome = "drifted" if rng.random() < 0.004 else "completed"
                with_row = rng.random() < 0.3
            elif row["attempts"] < 3:
                now += BACKOFF[row["attempts"] - 1]
                row.update(status="failed", next_retry_at=now)
            else:  # exhausted: somebody gives the track up, or moves it on, or has not looked yet
                row.update(status="failed")
                now += int(rng.expovariate(1 / (20 * HOUR))) if rng.random() < 0.7 else NEVER
                yield now
                outcome = rng.choice(["failed", "moved", "skipped"])
                if outcome == "skipped" and track.variant == "b":
                    row.update(status="skipped", updated_at=now)
                with_row = True
        if outcome == "failed" or (outcome == "skipped" and track.variant == "a"):
            return track.gone("failed", now)
        if outcome in ("drifted", "skipped"):
            return track.gone(STAGE_OF[task], now)
    track.gone("ready", now)


@dataclass
class World:
    start: datetime
    tracks: list[Track]
    depth: dict[int, Counter[str]]  # by hour since the start
    at_work: dict[int, list[tuple[Track, str, int]]]  # who, with what, since when

    def time(self, when: int | None) -> datetime | None:
        return None if when is None else self.start + timedelta(milliseconds=when)

    def truth(self) -> pd.DataFrame:
        """depth and waiting for every hour and step. Of the attempts only the last leaves a trace,
        and that only while it goes on or once it has succeeded."""
        records = []
        for hour, depth in self.depth.items():
            last = Counter(
                task
                for track, task, began in self.at_work[hour]
                if track.rows[task].get("last_attempt_at") == began
                and track.rows[task]["status"] in ("running", "completed")
            )
            bucket = self.start + timedelta(hours=hour)
            records += [(bucket, task, depth[task], depth[task] - last[task]) for task in STAGE_OF]
        columns = ["bucket", "task_type", "depth", "waiting"]
        return pd.DataFrame(records, columns=columns).set_index(columns[:2]).sort_index()


def simulate(variant: str, seed: int) -> World:
    rng = random.Random(seed)
    end = datetime.now(UTC)
    start = (end - timedelta(days=DAYS)).replace(minute=0, second=0, microsecond=0)
    length = (end - start) // timedelta(milliseconds=1)
    world = World(start, [Track(f"track{i:04}", variant) for i in range(TRACKS)], {}, {})
    lives = [life(track, rng.randrange(1, length), rng) for track in world.tracks]
    due = [next(one) for one in lives]

    def run(until: int) -> None:
        while min(due) < until:
            first = due.index(min(due))
            due[first] = next(lives[first], NEVER)

    for hour in range(length // HOUR + 1):
        run(hour * HOUR)
        inside = [track for track in world.tracks if track.at is not None]
        world.depth[hour] = Counter(track.at for track in inside)
        world.at_work[hour] = [(t, t.at, t.attempt) for t in inside if t.attempt is not None]
    run(length)
    return world


def write(world: World, bench: Bench) -> None:
    """The tables as they are at the end."""
    tracks = [(t.id, t.id, t.stage, world.start, world.time(t.updated_at)) for t in world.tracks]
    bench.connection.cursor().executemany(
        "INSERT INTO tracks (spotify_track_id, title, stage, artists, created_at, updated_at)"
        " VALUES (%s, %s, %s, '[]', %s, %s)",
        tracks,
    )
    for track in world.tracks:
        for task, row in track.rows.items():
            times = {name: world.time(row.get(name)) for name in TIMES}
            bench.task(track.id, task, **(row | times))
    if bench.variant == "b":
        bench.sql(
            "INSERT INTO audio_tasks (subject_type, subject_id, task_type, status, completed_at)"
            " VALUES ('tiktok_video', 'v', 'align', 'completed', now() - interval '2 days')"
        )


@pytest.mark.parametrize("bench", [pytest.param("a", marks=pytest.mark.proof), "b"], indirect=True)
def test_depth_and_waiting_are_the_true_ones_at_every_hour(bench: Bench) -> None:
    world = simulate(bench.variant, seed=5)
    at_first = [
        t for t in world.tracks if t.at == "download" and not t.rows["download"]["attempts"]
    ]
    for track in at_first[::2]:  # had no row made for them after all
        del track.rows["download"]
    every_case_is_there(world)
    write(world, bench)
    for since in (f"{DAYS}D", "9D"):
        found = bench.queue.flow(since, "1h").set_index(["bucket", "task_type"]).sort_index()
        truth = world.truth()
        truth = truth[truth.index.get_level_values("bucket") >= found.index[0][0]]
        assert len(truth) >= (pd.Timedelta(since) / pd.Timedelta("1h") - 1) * len(STAGE_OF)
        compared = found.loc[truth.index, ["depth", "waiting"]]
        assert compared[(compared != truth).any(axis=1)].empty
        pd.testing.assert_frame_equal(compared, truth, check_dtype=False, check_index_type=False)


def every_case_is_there(world: World) -> None:
    """That history must tell apart."""
    statuses = Counter(row["status"] for track in world.tracks for row in track.rows.values())
    skipped = ["skipped"] if world.tracks[0].variant == "b" else []
    assert min(statuses[s] for s in ("pending", "failed", "running", "completed", *skipped)) >= 3
    stages = Counter(track.stage for track in world.tracks if track.at is None)
    assert stages["failed"] > 3
    assert stages["ready"] > TRACKS / 3
    assert sum(stages[stage] for stage in STAGE_OF.values()) > 3  # drifted
    assert sum(track.at is not None and track.at not in track.rows for track in world.tracks) > 5
    assert max(max(depth.values(), default=0) for depth in world.depth.values()) > 10
