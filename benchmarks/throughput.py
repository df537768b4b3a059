"""Does throughput cost what the best SQL written by hand costs, and how long does an ETA compute?

    python benchmarks/throughput.py [--tracks 1000000] [--rounds 5]

On the embedded server, seeded with the incident (about 6.5 rows a track): `throughput` over 7 days
by the hour beside two statements by hand, in turns in one run. Both count completions and failures
in one scan. "simple" takes the completions of a step for the arrivals at the next, which is wrong
where a track came otherwise or did not come for all that: by how many is printed. "exact" puts
that right by joining each row to the one before it and to its track. Then the seven steps' ETA: its
query, and the computing beyond it.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

import dataset
import results
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.forecast.steps import step_forecasts
from queue_insights.queue import Queue

SLOWER, COMPUTING = 1.2, 0.3  # times the best by hand; seconds
HEAD = """
WITH step (position, stage, task_type) AS (VALUES
        (1, 'lyrics_acquired', 'download'), (2, 'audio_ready', 'align'),
        (3, 'aligned', 'translate'), (4, 'translated', 'separate'), (5, 'separated', 'segment'),
        (6, 'segmented', 'enhance'), (7, 'enhanced', 'clip')),
    hour AS (SELECT generate_series(date_trunc('hour', now() - interval '7 days', 'UTC'),
                                    now(), '1 hour') AS bucket),
    since AS MATERIALIZED (SELECT min(bucket) AS start FROM hour),
    counted AS (
        SELECT s.position, date_trunc('hour', k.completed_at, 'UTC') AS done,
               CASE WHEN k.status = 'failed' AND k.last_attempt_at >= (SELECT start FROM since)
                    THEN date_trunc('hour', k.last_attempt_at, 'UTC') END AS failed,
               CASE WHEN s.position = 1 AND k.created_at >= (SELECT start FROM since)
                    THEN date_trunc('hour', k.created_at, 'UTC') END AS made, count(*) AS n
        FROM audio_tasks k JOIN step s USING (task_type)
        WHERE k.completed_at >= (SELECT start FROM since)
           OR k.status = 'failed' AND k.last_attempt_at >= (SELECT start FROM since)
           OR s.position = 1 AND k.created_at >= (SELECT start FROM since)
        GROUP BY 1, 2, 3, 4),
    waits AS (
        SELECT date_trunc('hour', t.updated_at, 'UTC') AS bucket FROM tracks t
        WHERE t.stage = 'lyrics_acquired' AND t.updated_at >= (SELECT start FROM since)
          AND NOT EXISTS (SELECT FROM audio_tasks k WHERE k.spotify_track_id = t.spotify_track_id
                                                      AND k.task_type = 'download')),
"""
SIMPLE = """
    arrived AS (
        SELECT position, made AS bucket, n FROM counted WHERE made IS NOT NULL
        UNION ALL SELECT position + 1, done, n FROM counted WHERE done IS NOT NULL
        UNION ALL SELECT 1, bucket, 1 FROM waits)
"""
EXACT = """
    came AS (
        SELECT s.position, coalesce(p.completed_at, k.created_at) AS at
        FROM audio_tasks k JOIN step s ON s.task_type = k.task_type
        JOIN tracks t ON t.spotify_track_id = k.spotify_track_id
        LEFT JOIN step here ON here.stage = t.stage
        LEFT JOIN step b ON b.position = s.position - 1
        LEFT JOIN audio_tasks p ON p.spotify_track_id = k.spotify_track_id
                               AND p.task_type = b.task_type
        WHERE k.completed_at IS NOT NULL OR k.last_attempt_at IS NOT NULL
           OR k.status = 'skipped' OR here.position = s.position
        UNION ALL
        SELECT s.position, coalesce(p.completed_at, t.updated_at)
        FROM tracks t JOIN step s ON s.stage = t.stage
        LEFT JOIN step b ON b.position = s.position - 1
        LEFT JOIN audio_tasks p ON p.spotify_track_id = t.spotify_track_id
                               AND p.task_type = b.task_type
        WHERE NOT EXISTS (SELECT FROM audio_tasks k
                          WHERE k.spotify_track_id = t.spotify_track_id
                            AND k.task_type = s.task_type)),
    arrived AS (
        SELECT position, date_trunc('hour', at, 'UTC') AS bucket, count(*) AS n
        FROM came WHERE at >= (SELECT start FROM since) GROUP BY 1, 2)
"""
TAIL = """,
    event AS (
        SELECT position, bucket, n AS arrivals, 0 AS completions, 0 AS failures FROM arrived
        UNION ALL SELECT position, done, 0, n, 0 FROM counted
        WHERE done >= (SELECT start FROM since)
        UNION ALL SELECT position, failed, 0, 0, n FROM counted WHERE failed IS NOT NULL),
    total AS (
        SELECT position, bucket, sum(arrivals) AS arrivals, sum(completions) AS completions,
               sum(failures) AS failures FROM event GROUP BY 1, 2)
SELECT bucket, stage, task_type, coalesce(arrivals, 0)::bigint, coalesce(completions, 0)::bigint,
       coalesce(failures, 0)::bigint
FROM hour CROSS JOIN step LEFT JOIN total USING (bucket, position) ORDER BY bucket, position
"""
Rows = list[tuple[Any, ...]]


def contenders(connection: psycopg.Connection[Any], url: str) -> dict[str, Callable[[], Rows]]:
    queue = Queue(Database(url), pipeline.load())
    ours = queue._query("throughput").sql
    statements = {"ours": ours, "simple": HEAD + SIMPLE + TAIL, "exact": HEAD + EXACT + TAIL}
    return {
        name: lambda text=text: connection.execute(text).fetchall()  # type: ignore[misc]
        for name, text in statements.items()
    }


def differences(one: Rows, other: Rows) -> tuple[int, int]:
    """By how many arrivals two answers differ, and by how much of the rest."""
    pairs = list(zip(one, other, strict=True))
    return (
        sum(abs(a[3] - b[3]) for a, b in pairs),
        sum(abs(a[4] - b[4]) + abs(a[5] - b[5]) for a, b in pairs),
    )


def speed(url: str, rounds: int) -> Iterator[results.Result]:
    with psycopg.connect(url) as connection:
        connection.execute("SET jit = off")
        runs = contenders(connection, url)
        answers = {name: run() for name, run in runs.items()}  # also warms the cache
        for name in ("simple", "exact"):
            arrivals, rest = differences(answers["ours"], answers[name])
            print(f"{name}: {arrivals} arrivals counted otherwise, of all else {rest}", flush=True)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds):
            for name in list(runs)[turn % 3 :] + list(runs)[: turn % 3]:
                began = time.perf_counter()
                runs[name]()
                times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(each) for name, each in times.items()}
    right = {"simple": "wrong about some arrivals", "exact": "the same answer"}
    for name, what in right.items():
        yield results.Result(
            f"throughput, 7 days, beside {name} SQL by hand",
            f"{1000 * medians['ours']:.0f} ms",
            f"{1000 * medians[name]:.0f} ms, {what}",
            medians["ours"] / medians[name],
            SLOWER,
        )


def computing(url: str, rounds: int) -> results.Result:
    queue = Queue(Database(url), pipeline.load())
    asked, computed = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        with queue.snapshot() as moment:
            found = queue._read("eta")
        middle = time.perf_counter()
        step_forecasts(found, moment.as_of, {}, {})
        asked.append(middle - began)
        computed.append(time.perf_counter() - middle)
    return results.Result(
        "eta of seven steps: computing beyond its query, seconds, the best",
        f"{min(computed):.2f} s",
        f"query {min(asked):.2f} s",
        min(computed),
        COMPUTING,
    )


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with dataset.databases(given.folder) as database:
        url = database("a", given.tracks)
        found = [*speed(url, given.rounds), computing(url, given.rounds)]
    results.report(found, given.json)


if __name__ == "__main__":
    main()
