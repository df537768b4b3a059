"""Which reads grow with the backlog, and which with history?

    python benchmarks/growth.py [100000 1000000]

Per size, seeded with the incident: the time of each read, and of an ETA. At the smallest size also
the buffers that each read touches, beside those after ten times the history under the same backlog,
and after ten times the backlog under the same history.
"""

import os
import statistics
import time
from collections.abc import Iterator

import psycopg

import dataset
import results
from queue_insights import pipeline
from queue_insights.database import TIMEOUT, Database
from queue_insights.queue import Queue
from reads import GROW

READS: dict[str, dict[str, str]] = {
    **{name: {} for name in ("backlog", "audit", "orphans", "throughput", "durations", "flow")},
    **{name: {"task": "align"} for name in ("missing", "upcoming")},
    "eta": {},
}
# Ten times as many tracks at each step, without rows.
MORE_BACKLOG = """
    INSERT INTO tracks (spotify_track_id, title, artists, stage)
    SELECT left(md5(spotify_track_id || n), 22), title, artists, stage
    FROM tracks, generate_series(1, 9) AS n WHERE stage = ANY (%s)
"""


def queue(url: str) -> Queue:
    return Queue(Database(url), pipeline.load())


def seconds(url: str) -> dict[str, float]:
    """Median seconds of each read; of eta, its computing included."""
    found = {}
    for name in READS:
        took = []
        for _ in range(3):
            began = time.perf_counter()
            getattr(queue(url), name)()
            took.append(time.perf_counter() - began)
        found[name] = statistics.median(took)
    return found


def buffers(url: str) -> dict[str, int]:
    found = {}
    with psycopg.connect(url) as connection:
        connection.execute("SET jit = off")
        for name, arguments in READS.items():
            text = queue(url)._query(name, **arguments).sql
            for _ in range(2):
                explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}"
                ((plan,),) = connection.execute(explain.encode()).fetchall()
            root = plan[0]["Plan"]
            found[name] = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    return found


def grown(url: str, statement: str, *parameters: object) -> dict[str, int]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode(), parameters or None)
        connection.execute("VACUUM (ANALYZE) tracks, audio_tasks")
    return buffers(url)


def causes(database: dataset.Database, tracks: int) -> Iterator[results.Result]:
    before = buffers(database("a", tracks))
    stages = [step.stage for step in pipeline.load().steps]
    by_backlog = grown(database("a", tracks, to_change=True), MORE_BACKLOG, stages)
    grow = GROW.format(columns="", values="")
    by_history = grown(database("a", tracks, to_change=True), grow)
    for name, base in before.items():
        history, backlog = by_history[name] / base, by_backlog[name] / base
        with_what = [what for what, by in (("backlog", backlog), ("history", history)) if by > 1.5]
        yield results.Result(
            f"{name} grows with {' and '.join(with_what) or 'neither'}: history x 10",
            f"{by_history[name]:,} buffers",
            f"{base:,} before; backlog x 10: {backlog:.2f} times",
            history,
            None,
        )


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("tracks", type=int, nargs="*", default=[100_000, 1_000_000])
    given = parser.parse_args()
    os.environ[TIMEOUT] = "2h"  # how long the largest take is what is asked
    with dataset.databases(given.folder) as database:
        found = list(causes(database, min(given.tracks)))
        times = {tracks: seconds(database("a", tracks)) for tracks in sorted(given.tracks)}
    smallest, *others = times
    for tracks in others:
        for name, took in times[tracks].items():
            first = times[smallest][name]
            what, reference = f"{name} at {tracks:,} tracks", f"{first:.2f} s at {smallest:,}"
            ratio = took / first
            found.append(results.Result(what, f"{took:.2f} s", reference, ratio, None))
    results.report(found, given.json)


if __name__ == "__main__":
    main()
