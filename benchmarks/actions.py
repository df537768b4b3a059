"""How fast a backfill is beside one big INSERT, and what it costs workers beside it.

    python benchmarks/actions.py [--rows 1000000] [--rounds 3] [--variant a] [--seconds 20]

1. With no pause and no workers: ROWS tracks without a row, backfilled by a confirmed plan (all of
   apply: targets, batches, ledger), beside a single INSERT ... SELECT of the same rows in the same
   order with the same created_at. "by definition" selects them with the library's own query for
   missing rows, "by hand" is what somebody who knows this data would write (hash joins). Each on a
   fresh clone of the same database; they take turns.
2. At the default pace: how long WORKERS processes take to claim a task (select, ensure, start) with
   a backfill beside them and without one, in turns on fresh clones.

Printed: rows per second and ratios; growth of this process' memory; the longest transaction of a
batch; sequential scans. About ten minutes at the default size; quiet cores, please.
"""

import argparse
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

import results
from queue_insights import demo, pipeline
from queue_insights.actions import pace, runs
from queue_insights.actions.definitions import ACTIONS, Parameters
from queue_insights.actions.statements import selection
from queue_insights.database import Database
from queue_insights.errors import Stopped
from queue_insights.queue import Queue

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from workers import crew

WORKERS, THINK = 4, 0.02  # processes, and seconds that a task takes them
SETTLED = 5  # batches after which their size has

# Tracks come in the order of their creation, and finish the step before in about that order.
FILL = """
    INSERT INTO tracks (spotify_track_id, title, artists, stage)
    SELECT substr(translate(encode(sha256(i::text::bytea), 'base64'), '+/', 'xy'), 1, 22),
           'Song ' || i, '[]', 'audio_ready' FROM generate_series(1, {rows}) i;
    INSERT INTO audio_tasks (spotify_track_id, {key}task_type, status, attempts, completed_at)
    SELECT spotify_track_id, {value}'download', 'completed', 1,
           timestamptz '2026-01-01Z' + make_interval(secs => row_number() OVER () + 600 * random())
    FROM tracks
"""
BY_HAND = """
    INSERT INTO audio_tasks
        (spotify_track_id, {key}task_type, status, attempts, max_attempts, created_at)
    SELECT t.spotify_track_id, {value}'align', 'pending', 0, 3,
           coalesce(d.completed_at, t.updated_at)
    FROM tracks t
    LEFT JOIN audio_tasks a ON a.spotify_track_id = t.spotify_track_id AND a.task_type = 'align'
    LEFT JOIN audio_tasks d ON d.spotify_track_id = t.spotify_track_id AND d.task_type = 'download'
    WHERE t.stage = 'audio_ready' AND a.id IS NULL
    ORDER BY coalesce(d.completed_at, t.updated_at), t.spotify_track_id
"""


class Server:
    """Databases to clone."""

    def __init__(self, server: demo.EmbeddedServer, variant: str, rows: int):
        self.server, self.variant = server, variant
        b = variant == "b"
        self.subject = {
            "key": "subject_type, subject_id, " if b else "",
            "value": "'track', spotify_track_id, " if b else "",
        }
        self._admin("CREATE DATABASE template_queue")
        with psycopg.connect(server.url("template_queue")) as connection:
            demo.create_schema(connection, variant)
            connection.execute("SET max_parallel_workers_per_gather = 0")
            connection.execute(FILL.format(rows=rows, **self.subject))
        with psycopg.connect(server.url("template_queue"), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE, FREEZE)")

    @contextmanager
    def clone(self) -> Iterator[str]:
        self._admin("CREATE DATABASE clone TEMPLATE template_queue STRATEGY file_copy")
        self._admin("CHECKPOINT")
        try:
            yield self.server.url("clone")
        finally:
            self._admin("DROP DATABASE clone WITH (FORCE)")

    def _admin(self, statement: str) -> None:
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as admin:
            admin.execute(statement)


def operable(url: str) -> Queue:
    return Queue(Database(url), pipeline.load())


def by_definition(queue: Queue) -> str:
    """One INSERT ... SELECT out of the library's own query for what backfill takes."""
    schema = queue.schema
    what = (ACTIONS["backfill"], Parameters(("align",)), schema.pipeline.select("align"))
    subject = ", subject_type, subject_id" if queue.schema.variant == "b" else ""
    values = ", 'track', track_id" if subject else ""
    return f"""
        {selection(schema, *what, "selection.sql").sql}
        INSERT INTO audio_tasks (spotify_track_id, task_type, status, attempts, max_attempts,
                                 created_at{subject})
        SELECT track_id, task_type, 'pending', 0, max_attempts_after, arrived_at{values}
        FROM taken ORDER BY arrived_at, track_id
    """


def one_insert(url: str, statement: str) -> tuple[int, float]:
    """Rows, seconds."""
    with psycopg.connect(url) as connection:
        began = time.monotonic()
        rows = connection.execute(statement).rowcount
        connection.commit()
        return rows, time.monotonic() - began


def one_run(url: str) -> tuple[int, float, dict[str, float]]:
    """Rows, seconds; and what else was promised."""
    queue = operable(url)
    plan = queue.plan_backfill(tasks="align")
    longest: list[float] = []
    turn = runs.Loop.settle

    def timed(loop: Any) -> Any:
        began = time.monotonic()
        done = turn(loop)
        longest.append(time.monotonic() - began)
        return done

    runs.Loop.settle = timed  # type: ignore[method-assign]
    try:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        run = plan.apply(confirm=plan.token, pause=0)
        seconds = time.monotonic() - began
    finally:
        runs.Loop.settle = turn  # type: ignore[method-assign]
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname IN ('tracks', "
            "'audio_tasks', 'targets')"
        ).fetchone()
    assert found is not None
    return (
        *(run.row["rows_done"], seconds),
        {
            "batches": len(longest) - 1,
            "longest": max(longest[SETTLED:], default=0.0),
            "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024,
            "scans": float(found[0] or 0),
        },
    )


def throughput(server: Server, rounds: int) -> Iterator[results.Result]:
    hand = BY_HAND.format(**server.subject).replace(
        "'track', spotify_track_id", "'track', t.spotify_track_id"
    )
    ratios: dict[str, list[float]] = defaultdict(list)
    speeds: dict[str, list[float]] = defaultdict(list)
    longest: list[float] = []
    for _ in range(rounds):
        took: dict[str, float] = {}
        for name in ("by hand", "run", "by definition"):
            with server.clone() as url:
                if name == "run":
                    rows, seconds, more = one_run(url)
                else:
                    statement = hand if name == "by hand" else by_definition(operable(url))
                    rows, seconds = one_insert(url, statement)
            took[name] = seconds
            speeds[name].append(rows / seconds)
            print(f"  {name:14} {rows:,} rows  {rows / seconds:9,.0f} rows/s")
            if name == "run":
                longest.append(more["longest"])
                print(
                    f"  {'':14} {more['batches']:.0f} batches, the longest once settled "
                    f"{more['longest']:.2f} s (target below 1); memory grew {more['memory']:.0f} "
                    f"MB; {more['scans']:.0f} sequential scans in all",
                    flush=True,
                )
        for name in ("by hand", "by definition"):
            ratios[name].append(took[name] / took["run"])
    for name in ("by definition", "by hand"):
        yield results.Result(
            f"backfill, no pause, beside one INSERT {name}",
            f"{statistics.median(speeds['run']):,.0f} rows/s",
            f"{statistics.median(speeds[name]):,.0f} rows/s",
            statistics.median(ratios[name]),
            0.8,
            at_least=True,
        )
    yield results.Result(
        "backfill: the longest transaction once settled, seconds",
        f"{max(longest):.2f} s",
        "",
        max(longest),
        1.0,
    )


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def beside_workers(server: Server, rounds: int, seconds: float) -> Iterator[results.Result]:
    ratios, speeds = [], []
    slowest: dict[bool, list[float]] = defaultdict(list)
    for turn in range(rounds):
        claims: dict[bool, list[float]] = {}
        for beside in (False, True) if turn % 2 else (True, False):
            with server.clone() as url:
                queue = operable(url)
                plan = queue.plan_backfill(tasks="align")
                given = (url, server.variant, WORKERS, THINK, ["audio_ready"])
                with crew(*given, ordered=False) as met:
                    time.sleep(1.0)  # so that all of them are warm
                    if beside:
                        speeds.append(_run_for(seconds, queue, plan))
                    else:
                        time.sleep(seconds)
                # The first second is no part of it.
                claims[beside] = [c for w in met for c in w["claims"][len(w["claims"]) // 10 :]]
        for beside, values in claims.items():
            slowest[beside].append(percentile(values, 0.99))
        ratio = percentile(claims[True], 0.99) / percentile(claims[False], 0.99)
        ratios.append(ratio)
        for beside, values in sorted(claims.items()):
            halves = f"p50 {percentile(values, 0.5) * 1e3:6.1f} ms  p99 "
            halves += f"{percentile(values, 0.99) * 1e3:6.1f} ms  of {len(values)} claims"
            print(f"  {'beside a backfill' if beside else 'without':18} {halves}", flush=True)
        print(f"  {'':18} ratio of p99 {ratio:.2f}")
    yield results.Result(
        f"claims beside a backfill ({statistics.median(speeds):,.0f} rows/s), 99th percentile",
        f"{statistics.median(slowest[True]) * 1e3:.0f} ms",
        f"{statistics.median(slowest[False]) * 1e3:.0f} ms without",
        statistics.median(ratios),
        1.5,
    )


def _run_for(seconds: float, queue: Queue, plan: Any) -> float:
    """Rows per second of a run at the default pace that is interrupted after *seconds*."""
    began = time.monotonic()
    rest = pace.Pace.rest

    def until(self: Any, length: float) -> None:
        rest(self, length)
        self.interrupted = self.interrupted or time.monotonic() - began > seconds

    pace.Pace.rest = until  # type: ignore[method-assign]
    try:
        run = plan.apply(confirm=plan.token)
    except Stopped:
        run = queue.run(1)
    finally:
        pace.Pace.rest = rest  # type: ignore[method-assign]
    return float(run.row["rows_done"] / (time.monotonic() - began))


def measure(server: Server, given: argparse.Namespace) -> Iterator[results.Result]:
    if given.part != 2:
        print(f"1. {given.rows:,} missing rows, variant {given.variant}, no pause, no workers")
        yield from throughput(server, given.rounds)
    if given.part != 1:
        print(f"2. default pace beside {WORKERS} workers ({THINK * 1e3:.0f} ms a task)")
        yield from beside_workers(server, given.rounds, given.seconds)


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", choices="ab", default="a")
    parser.add_argument("--seconds", type=float, default=20.0, help="each turn of part 2")
    parser.add_argument("--part", type=int, choices=(1, 2), help="only this one")
    given = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="queue-insights-actions-", dir="/var/tmp")
    try:
        with demo.EmbeddedServer(folder) as embedded:
            found = list(measure(Server(embedded, given.variant, given.rows), given))
    finally:
        shutil.rmtree(folder)
    results.report(found, given.json)


if __name__ == "__main__":
    main()
