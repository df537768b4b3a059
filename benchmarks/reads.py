"""Do backlog and audit cost what the best SQL written by hand for the same answer costs?

    python benchmarks/reads.py [--tracks 1000000] [--rounds 5]

On the embedded server, for each variant: our two queries beside hand-written ones, which are run as
the planner likes, with hash joins only and with index probes only; the best of the three counts.
All take turns in one run, and give the same answer. Then the same two queries' buffers before and
after completed history grows tenfold under the same backlog. At the default size that takes about
a quarter of an hour, 8 GB of disk, and quiet cores.
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
from queue_insights.demo import FEWEST
from queue_insights.queue import Queue

SLOWER, MORE_BUFFERS = 1.2, 1.1  # at most so many times
READS = ("backlog", "audit")
Connection = psycopg.Connection[Any]

STEPS = """
    step (position, stage, task_type, previous) AS (VALUES
        (1, 'lyrics_acquired', 'download', NULL), (2, 'audio_ready', 'align', 'download'),
        (3, 'aligned', 'translate', 'align'), (4, 'translated', 'separate', 'translate'),
        (5, 'separated', 'segment', 'separate'), (6, 'segmented', 'enhance', 'segment'),
        (7, 'enhanced', 'clip', 'enhance')),
    open AS (
        SELECT task_type, count(*) FILTER (WHERE status = 'pending') AS visible, count(*) AS "all"
        FROM audio_tasks WHERE status IN {statuses} {ours} GROUP BY task_type)
"""
BACKLOG = """
WITH {steps}, standing AS (
    SELECT s.task_type, coalesce(p.completed_at, k.created_at, t.updated_at) AS arrived_at,
           CASE WHEN k.id IS NULL THEN 'missing'
                WHEN k.status IN ('pending', 'failed') THEN
                    CASE WHEN k.attempts >= k.max_attempts
                              OR k.attempts IS NULL OR k.max_attempts IS NULL THEN 'exhausted'
                         WHEN k.next_retry_at > now() THEN 'backing_off'
                         WHEN k.status = 'pending' THEN 'pending' ELSE 'retryable' END
                WHEN k.status = 'running' THEN
                    CASE WHEN k.last_attempt_at >= now() - interval '30 minutes'
                         THEN 'running' ELSE 'stuck' END
                WHEN k.status = 'completed' THEN 'drifted'
                WHEN k.status = 'skipped' THEN 'skipped' ELSE 'other' END AS state
    FROM tracks t
    JOIN step s ON s.stage = t.stage
    LEFT JOIN audio_tasks k ON k.{owner} = t.spotify_track_id AND k.task_type = s.task_type {ours_k}
    LEFT JOIN audio_tasks p ON p.{owner} = t.spotify_track_id AND p.task_type = s.previous {ours_p}
    WHERE t.stage IN ('lyrics_acquired', 'audio_ready', 'aligned', 'translated', 'separated',
                      'segmented', 'enhanced')
), counted AS (
    SELECT task_type, count(*) AS tracks, {states},
           extract(epoch FROM now() - min(arrived_at) FILTER (WHERE state IN
               ('missing', 'pending', 'retryable', 'backing_off')))::float8 AS oldest
    FROM standing GROUP BY task_type
)
SELECT stage, s.task_type, coalesce(tracks, 0), {zeros},
       coalesce(missing + pending + retryable, 0),
       coalesce(missing + pending + retryable + backing_off, 0), coalesce(visible, 0), oldest
FROM step s LEFT JOIN counted USING (task_type) LEFT JOIN open USING (task_type)
ORDER BY s.position
"""
AUDIT = """
WITH {steps}, standing AS (
    SELECT s.task_type, count(*) FILTER (WHERE k.id IS NULL) AS hidden,
           count(*) FILTER (WHERE k.status IN ('pending', 'failed')) AS here,
           count(*) FILTER (WHERE k.id IS NULL OR k.status IN ('pending', 'failed')
               AND k.attempts < k.max_attempts
               AND (k.next_retry_at IS NULL OR k.next_retry_at <= now())) AS eligible
    FROM tracks t
    JOIN step s ON s.stage = t.stage
    LEFT JOIN audio_tasks k ON k.{owner} = t.spotify_track_id AND k.task_type = s.task_type {ours_k}
    WHERE t.stage IN ('lyrics_acquired', 'audio_ready', 'aligned', 'translated', 'separated',
                      'segmented', 'enhanced')
    GROUP BY s.task_type
)
SELECT stage, s.task_type, coalesce(eligible, 0), coalesce(visible, 0), coalesce(hidden, 0),
       coalesce("all", 0) - coalesce(here, 0),
       CASE WHEN hidden > 0 THEN 'hidden'
            WHEN coalesce("all", 0) > coalesce(here, 0) THEN 'overstated' ELSE 'visible' END
FROM step s LEFT JOIN standing USING (task_type) LEFT JOIN open USING (task_type)
ORDER BY s.position
"""
STATES = (
    *("missing", "pending", "retryable", "backing_off", "running"),
    *("stuck", "exhausted", "drifted", "skipped", "blocked", "other"),
)
SHAPES = {
    "as planned": [],
    "hash joins": ["enable_nestloop"],
    "index probes": ["enable_hashjoin", "enable_mergejoin"],
}
# More of what is done with: tracks that stand nowhere in the pipeline, and their rows. The ids are
# as scattered as the old ones; triggers and foreign keys would only take time.
GROW = """
    SET session_replication_role = replica;
    CREATE TEMP TABLE copy AS
    SELECT spotify_track_id AS old, left(md5(spotify_track_id || n), 22) AS new
    FROM tracks, generate_series(1, 9) AS n
    WHERE stage = 'ready' OR stage = 'published';
    INSERT INTO tracks (spotify_track_id, title, artists, stage, updated_at)
    SELECT new, title, artists, stage, updated_at
    FROM copy JOIN tracks ON spotify_track_id = old;
    INSERT INTO audio_tasks (spotify_track_id, task_type, status, attempts, max_attempts,
        created_at, completed_at {columns})
    SELECT new, task_type, status, attempts, max_attempts, created_at, completed_at {values}
    FROM copy JOIN audio_tasks ON spotify_track_id = old
    WHERE status NOT IN ('pending', 'failed');
    DROP TABLE copy;
    RESET session_replication_role;
"""


def by_hand(read: str, variant: str) -> str:
    ours = "" if variant == "a" else "AND {}subject_type = 'track'"
    return {"backlog": BACKLOG, "audit": AUDIT}[read].format(
        steps=STEPS.format(
            ours=ours.format(""),
            statuses="('pending')" if read == "backlog" else "('pending', 'failed')",
        ),
        owner="spotify_track_id" if variant == "a" else "subject_id",
        ours_k=ours.format("k."),
        ours_p=ours.format("p."),
        states=", ".join(f"count(*) FILTER (WHERE state = '{s}') AS {s}" for s in STATES),
        zeros=", ".join(f"coalesce({state}, 0)" for state in STATES),
    )


def contenders(
    connection: Connection, queue: Queue, read: str, variant: str
) -> dict[str, Callable[[], list[Any]]]:
    def run(text: str, off: list[str]) -> list[Any]:
        for setting in off:
            connection.execute(f"SET LOCAL {setting} = off")
        try:
            return connection.execute(text).fetchall()
        finally:
            for setting in off:
                connection.execute(f"SET LOCAL {setting} = on")

    ours = queue._query(read).sql
    hand = by_hand(read, variant)
    return {
        "ours": lambda: run(ours, []),
        **{name: lambda off=off: run(hand, off) for name, off in SHAPES.items()},  # type: ignore
    }


def speed(url: str, variant: str, rounds: int) -> Iterator[results.Result]:
    """Per read: median milliseconds of ours, and of the best of the shapes by hand."""
    queue = Queue(Database(url), pipeline.load())
    with psycopg.connect(url) as connection:
        for read in READS:
            runs = contenders(connection, queue, read, variant)
            answers = {name: run() for name, run in runs.items()}  # also warms the cache
            assert all(answer == answers["ours"] for answer in answers.values()), answers
            times: dict[str, list[float]] = {name: [] for name in runs}
            for i in range(rounds):
                order = list(runs)[i % len(runs) :] + list(runs)[: i % len(runs)]
                for name in order:
                    began = time.perf_counter()
                    runs[name]()
                    times[name].append(time.perf_counter() - began)
            medians = {name: statistics.median(each) for name, each in times.items()}
            print(read, {name: f"{1000 * m:.1f} ms" for name, m in medians.items()}, flush=True)
            best = min(medians[name] for name in SHAPES)
            yield results.Result(
                f"{read}, variant {variant.upper()}",
                f"{1000 * medians['ours']:.0f} ms",
                f"{1000 * best:.0f} ms, the best of three by hand",
                medians["ours"] / best,
                SLOWER,
            )


def growth(url: str, variant: str) -> Iterator[results.Result]:
    """Per read: buffers after completed history has grown tenfold, and before."""
    queue = Queue(Database(url), pipeline.load())
    before = {read: buffers(url, queue._query(read).sql) for read in READS}
    levels = height(url)
    more = {"columns": "", "values": ""}
    if variant == "b":
        more = {"columns": ", subject_type, subject_id", "values": ", 'track', new"}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(GROW.format(**more))
        connection.execute("VACUUM (ANALYZE) tracks, audio_tasks")
    for read in READS:
        after, deeper = buffers(url, queue._query(read).sql), height(url)
        yield results.Result(
            f"{read}, variant {variant.upper()}, history x 10",
            f"{after:,} buffers, index of {deeper} levels",
            f"{before[read]:,} buffers before, {levels} levels",
            after / before[read],
            MORE_BUFFERS if deeper == levels else None,
        )


def height(url: str) -> int:
    """How many pages a look-up in the task table's unique key touches: one a level."""
    absent = "SELECT FROM audio_tasks WHERE spotify_track_id = '~' AND task_type = 'align'"
    return buffers(url, absent, "SET enable_seqscan = off; SET enable_bitmapscan = off")


def buffers(url: str, text: str, before: str = "SET jit = off") -> int:
    """Shared buffers that a query touches, hit or read, the second time."""
    with psycopg.connect(url) as connection:
        connection.execute(before.encode())
        for _ in range(2):
            cursor = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}".encode())
            ((plan,),) = cursor.fetchall()
    root = plan[0]["Plan"]
    return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with dataset.databases(given.folder) as database:
        found: list[results.Result] = []
        for variant in ("a", "b"):
            found += speed(database(variant, given.tracks), variant, given.rounds)
            smaller = max(given.tracks // 10, FEWEST)
            found += growth(database(variant, smaller, to_change=True), variant)
    results.report(found, given.json)


if __name__ == "__main__":
    main()
