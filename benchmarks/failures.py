"""What do failures cost beside the plain GROUP BY of their messages?

    python benchmarks/failures.py [--rows 1000000] [--rounds 5]

On the embedded server, so many failed rows of one task: with a thousand messages between them, and
with a message each. The plain statement counts rows by task and message, of those whose track still
stands there, as failures does. Both take turns, and the server answers with a count only.
"""

import statistics
import time
from collections.abc import Iterator

import psycopg

import dataset
import results
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue

PLAIN = """
    SELECT k.task_type, k.error_message, count(*)
    FROM audio_tasks k JOIN tracks t USING (spotify_track_id)
    WHERE k.status = 'failed' AND k.task_type = 'align' AND t.stage = 'audio_ready'
    GROUP BY 1, 2
"""
FILL = """
    SET session_replication_role = replica;
    TRUNCATE tracks, audio_tasks;
    INSERT INTO tracks (spotify_track_id, title, artists, stage)
    SELECT left(md5(i::text), 22), 'Song', '[]', 'audio_ready' FROM generate_series(1, %(rows)s) i;
    INSERT INTO audio_tasks (spotify_track_id, task_type, status, attempts, last_attempt_at,
        error_message)
    SELECT left(md5(i::text), 22), 'align', 'failed', 1 + i %% 3, now() - i * interval '1 second',
           'HTTP 503 from https://cdn.example.com/audio/' || md5((i %% %(messages)s)::text)
           || '.mp3: no answer within ' || i %% 100 || ' s'
    FROM generate_series(1, %(rows)s) i;
    ANALYZE tracks, audio_tasks;
"""


def compared(url: str, rows: int, rounds: int) -> Iterator[results.Result]:
    ours = Queue(Database(url), pipeline.load())._query("failures").sql
    for messages, target in ((1000, 1.5), (rows, 4.0)):
        with psycopg.connect(url, autocommit=True) as connection:
            text = FILL.replace("%(rows)s", str(rows)).replace("%(messages)s", str(messages))
            connection.execute(text.replace("%%", "%"))
            connection.execute("RESET session_replication_role; SET jit = off")
            times: dict[str, list[float]] = {ours: [], PLAIN: []}
            for _ in range(rounds + 1):
                for statement in times:
                    began = time.perf_counter()
                    connection.execute(f"SELECT count(*) FROM ({statement}) AS answer")
                    times[statement].append(time.perf_counter() - began)
        pairs = list(zip(times[ours], times[PLAIN], strict=True))[1:]  # the first warms the cache
        mine, plain = (statistics.median(each) for each in zip(*pairs, strict=True))
        yield results.Result(
            f"failures of {rows:,} rows, {messages:,} messages",
            f"{mine:.2f} s",
            f"{plain:.2f} s, the plain GROUP BY",
            statistics.median(one / other for one, other in pairs),
            target,
        )


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with dataset.databases(given.folder) as database:
        url = database("a", 2000, to_change=True)
        found = list(compared(url, given.rows, given.rounds))
    results.report(found, given.json)


if __name__ == "__main__":
    main()
