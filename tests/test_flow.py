"""What history tells of arrivals, completions and depth: behind a stage that feeds several tasks,
and, rebuilt from final rows, as a simulation wrote it down hour by hour."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import FORKED, STAGE_OF, Bench
from operating import operable, video

Event = tuple[str, str, pd.Timestamp]  # arrivals or completions, task, the hour


def counted(frame: pd.DataFrame, *kinds: str) -> Counter[Event]:
    found = frame.set_index(["task_type", "bucket"])
    return Counter({(kind, *at): n for kind in kinds for at, n in found[kind].items() if n})


def test_history_counts_the_arrival_after_a_branch_once_with_its_last_completion(
    bench: Bench, tmp_path: Path
) -> None:
    """Of tracks that came one an hour; every other is through, the rest wait at the last step, some
    with a row."""
    file = tmp_path / "forked.yaml"
    file.write_text(FORKED)
    queue = operable(bench.url, file)
    hour = timedelta(hours=1)
    ((now,),) = bench.sql("SELECT date_trunc('hour', now(), 'UTC') + interval '1 minute'")
    happened: Counter[Event] = Counter()

    def done(track: str, task: str, came: datetime, at: datetime) -> None:
        bench.task(track, task, "completed", created_at=came, completed_at=at, attempts=1)
        for kind, time in (("arrivals", came), ("completions", at)):
            happened[kind, task, pd.Timestamp(time).floor("h")] += 1

    for i in range(24):
        track = bench.track(f"track {i}", "ready" if i % 2 else "translated")
        came = now - (33 - i) * hour
        done(track, "download", came, came + hour)
        # Now the one, now the other is the last.
        aligned, translated = came + (2 + i % 3) * hour, came + (3 - i % 2) * hour
        done(track, "align", came + hour, aligned)
        done(track, "translate", came + hour, translated)
        last = max(aligned, translated)
        if i % 2:
            done(track, "segment", last, last + hour)
            continue
        happened["arrivals", "segment", pd.Timestamp(last).floor("h")] += 1
        if i % 4:
            bench.task(track, "segment", created_at=last + hour)
    assert counted(queue.throughput("4D"), "arrivals", "completions") == happened
    flow = queue.flow("4D").rename(columns={"departures": "completions"})
    assert counted(flow, "arrivals", "completions") == happened
    ends = flow[flow.bucket == flow.bucket.max()].set_index("task_type")
    there = ends.depth + ends.arrivals - ends.completions
    assert there.to_dict() == {"download": 0, "align": 0, "translate": 0, "segment": 12}
    assert list(queue.durations("4D").completions) == [24, 24, 24, 12]
    assert list(queue.eta().waiting) == [0, 0, 0, 12]


# -- simulated ----------------------------------------------------------------------------------

TRACKS, DAYS = 600, 25
HOUR, MINUTE = 3_600_000, 60_000  # times are whole milliseconds from the start, so exact
NEVER = 10**12
BACKOFF = (5 * MINUTE, 15 * MINUTE, 30 * MINUTE)
ROW = {"status": "pending", "attempts": 0, "max_attempts": 3}


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


def simulate(
    tracks: list[Track], length: int, rng: random.Random
) -> list[tuple[int, Track, str, int | None]]:
    """Let *tracks* live: who was at which task at every hour, since when its attempt goes on."""
    found = []
    for track in tracks:
        hour = 0
        for event in life(track, rng.randrange(1, length), rng):
            for now in range(hour * HOUR, min(event, length) + 1, HOUR):
                if track.at is not None:
                    found.append((hour, track, track.at, track.attempt))
                hour = now // HOUR + 1
            if event >= length:
                break
    return found


def write(bench: Bench, tracks: list[Track], start: datetime) -> None:
    """The tables as they are at the end."""

    def timed(values: dict[str, Any]) -> dict[str, Any]:
        times = {n: v for n, v in values.items() if n.endswith("_at") and v is not None}
        return values | {n: start + timedelta(milliseconds=v) for n, v in times.items()}

    moved = "UPDATE tracks SET updated_at = %s WHERE spotify_track_id = %s"
    bench.sql("ALTER TABLE tracks DISABLE TRIGGER USER")
    for track in tracks:
        bench.track(track.id, track.stage)
        bench.sql(moved, start + timedelta(milliseconds=track.updated_at), track.id)
        for task, row in track.rows.items():
            bench.task(track.id, task, **timed(row))
    video(bench, "align", "completed")
    done = "completed_at IS NULL AND status = 'completed'"
    bench.sql(f"UPDATE audio_tasks SET completed_at = now() - interval '2 days' WHERE {done}")


@pytest.mark.parametrize("bench", [pytest.param("a", marks=pytest.mark.proof), "b"], indirect=True)
def test_depth_waiting_and_completions_are_the_true_ones_at_every_hour(bench: Bench) -> None:
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    length = (datetime.now(UTC) - start) // timedelta(milliseconds=1)
    tracks = [Track(f"track{i:04}", bench.variant) for i in range(TRACKS)]
    happened = simulate(tracks, length, random.Random(5))
    at_first = [t for t in tracks if t.at == "download" and not t.rows["download"]["attempts"]]
    for track in at_first[::2]:  # had no row made for them after all
        del track.rows["download"]
    statuses = Counter(row["status"] for track in tracks for row in track.rows.values())
    assert {"pending", "failed", "running", "completed"} <= set(statuses)
    assert sum(track.at is not None and track.at not in track.rows for track in tracks) > 5
    with bench.connection.transaction():
        write(bench, tracks, start)
    depth, waiting = Counter[Any](), Counter[Any]()
    for hour, track, task, began in happened:
        depth[hour, task] += 1
        row = track.rows.get(task, {})
        # Only the last attempt leaves a trace, while it goes on or once it has succeeded.
        traced = row.get("status") in ("running", "completed") and row["last_attempt_at"] == began
        waiting[hour, task] += not traced
    done: Counter[Event] = Counter()
    for track in tracks:
        for task, row in track.rows.items():
            if row["status"] == "completed":
                at = start + timedelta(hours=row["completed_at"] // HOUR)
                done["completions", task, pd.Timestamp(at)] += 1
    for since in (f"{DAYS}D", "9D"):
        found = bench.queue.flow(since, "1h").set_index(["bucket", "task_type"])
        hours = [(int((bucket - start) / pd.Timedelta("1h")), task) for bucket, task in found.index]
        assert len(hours) >= (pd.Timedelta(since) / pd.Timedelta("1h") - 1) * len(STAGE_OF)
        for name, truth in (("depth", depth), ("waiting", waiting)):
            assert found[name].tolist() == [truth[at] for at in hours], name
        rates = bench.queue.throughput(since, "1h")
        lately = {event: n for event, n in done.items() if event[2] >= rates.bucket.min()}
        assert counted(rates, "completions") == lately
        assert set(zip(rates.bucket, rates.task_type, strict=True)) == set(found.index)
    rates = bench.queue.throughput(since="3D", bucket="1D", zone="Asia/Kolkata")
    local = rates.bucket.dt.tz_convert("Asia/Kolkata")
    assert set(local.dt.strftime("%H:%M")) == {"00:00"}
    assert rates.bucket.max() <= datetime.now(UTC)
