"""What the trigger costs the application, beside none at all and beside the incident's kind.

    python benchmarks/trigger.py [--tracks 100000] [--rounds 5] [--variant a]

Four databases with the same rows: two without a trigger (what `twin` is of `none` is noise alone,
and is divided out), one with ours, and one with a row trigger of the incident report's kind: one IF
block per stage, no WHEN. They take turns, so that whatever else the machine does hits them alike.
Printed: medians of the times, and of the ratios of those that ran side by side; by the clock, which
is what counts, and by the server's processor time, which is what can be trusted on a busy machine.
About five minutes at the default size; quiet cores, please.
"""

import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

import results
from queue_insights import demo, pipeline
from queue_insights.database import Database
from queue_insights.ddl import trigger
from queue_insights.demo import binaries
from queue_insights.queue import Queue

ARMS = ("none", "twin", "ours", "field")
CHUNKS = 40  # statements that go over all tracks together, without a change of stage
CLIENTS, CHANGES = 4, 500  # single changes of a stage: sessions, and how many each
TARGETS = {"untouched": 1.05, "same value": 1.15, "single, 4 clients": 1.0, "bulk": 1.0}

KEY = {"a": "spotify_track_id", "b": "subject_type, subject_id"}
VALUES = {"a": "{0}spotify_track_id", "b": "'track', {0}spotify_track_id"}
ALSO = {"a": "", "b": ", spotify_track_id"}

FILL = """
    INSERT INTO tracks (spotify_track_id, title, artists, stage)
    SELECT lpad(i::text, 22, 'x'), 'Song ' || i, '[]', 'lyrics_acquired'
    FROM generate_series(0, {tracks} - 1) i;
    INSERT INTO audio_tasks ({key}{also}, task_type, status, completed_at)
    SELECT {values}{also}, 'download', 'completed', now() FROM tracks
"""
BLOCK = """
        IF NEW.stage = '{stage}' AND OLD.stage IS DISTINCT FROM '{stage}' THEN
            INSERT INTO audio_tasks ({key}{also}, task_type, status, max_attempts)
            VALUES ({values}{value}, '{task}', 'pending', 3)
            ON CONFLICT ({key}, task_type) DO NOTHING;
        END IF;"""
FIELD = """
    CREATE FUNCTION create_audio_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN {blocks}
        RETURN NEW;
    END $$;
    CREATE TRIGGER create_audio_tasks AFTER UPDATE ON tracks
        FOR EACH ROW EXECUTE FUNCTION create_audio_tasks()
"""
CHUNK = """
    UPDATE tracks SET {change} WHERE spotify_track_id >= lpad('{first}', 22, 'x')
                                 AND spotify_track_id <= lpad('{last}', 22, 'x')
"""
# Each change is of another track and makes a row, as one of a worker does.
SINGLE = f"""\
\\set i :i + 1
\\set n 100000000 + :client_id * {CHANGES} + :i
UPDATE tracks SET stage = 'aligned' WHERE spotify_track_id = lpad((:n)::text, 22, 'x');
"""
SINGLES = f"""
    INSERT INTO tracks (spotify_track_id, title, artists, stage)
    SELECT lpad(i::text, 22, 'x'), 'Song', '[]', 'pending'
    FROM generate_series(100000000, 100000000 + {CLIENTS * CHANGES}) i
"""

Url = Callable[[str], str]
Seconds = dict[tuple[str, str], list[tuple[float, float]]]  # by the clock, of the processor
Connection = psycopg.Connection[Any]


def main() -> None:
    arguments = results.parser(__doc__)
    arguments.add_argument("--tracks", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--variant", choices="ab", default="a")
    given = arguments.parse_args()
    folder = tempfile.mkdtemp(prefix="queue-insights-bench-", dir="/var/tmp")
    try:
        with demo.EmbeddedServer(folder) as server:
            template(server.url, given.variant, given.tracks)
            seconds: Seconds = defaultdict(list)
            for number in range(given.rounds):
                with databases(server.url, given.variant) as connections:
                    unchanged(connections, given.tracks, seconds)
                    bulk(connections, seconds)
                    singles(server, connections, seconds)
                print(f"round {number + 1} of {given.rounds} done", flush=True)
    finally:
        shutil.rmtree(folder)
    show(seconds)
    results.report([judged(seconds, *kind) for kind in TARGETS.items()], given.json)


def template(url: Url, variant: str, tracks: int) -> None:
    with psycopg.connect(url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE template")
    with psycopg.connect(url("template")) as connection:
        demo.create_schema(connection, variant)
        parts = {"key": KEY[variant], "values": VALUES[variant].format(""), "also": ALSO[variant]}
        connection.execute(FILL.format(tracks=tracks, **parts))
    with psycopg.connect(url("template"), autocommit=True) as connection:
        connection.execute("VACUUM (FREEZE, ANALYZE)")


@contextmanager
def databases(url: Url, variant: str) -> Iterator[dict[str, Connection]]:
    """A fresh copy for each arm, with its trigger."""
    with psycopg.connect(url("postgres"), autocommit=True) as admin:
        for arm in ARMS:
            admin.execute(f"CREATE DATABASE arm_{arm} TEMPLATE template")
        connections = {a: psycopg.connect(url(f"arm_{a}"), autocommit=True) for a in ARMS}
        try:
            trigger.install(Queue(Database(url("arm_ours")), pipeline.load()))
            connections["field"].execute(field(variant))
            yield connections
        finally:
            for arm, connection in connections.items():
                connection.close()
                admin.execute(f"DROP DATABASE arm_{arm} WITH (FORCE)")


def field(variant: str) -> str:
    """The incident's kind of trigger (for B, what it has to become after the migration)."""
    parts = {"key": KEY[variant], "values": VALUES[variant].format("NEW."), "also": ALSO[variant]}
    value = ", NEW.spotify_track_id" if variant == "b" else ""
    steps = pipeline.load().steps
    blocks = (BLOCK.format(stage=s.stage, task=s.task, value=value, **parts) for s in steps)
    return FIELD.format(blocks="".join(blocks))


def timed(connection: Connection, statement: str) -> tuple[float, float]:
    used = Path(f"/proc/{connection.info.backend_pid}/schedstat")
    started, before = time.perf_counter(), int(used.read_text().split()[0])
    connection.execute(statement.encode())
    return time.perf_counter() - started, (int(used.read_text().split()[0]) - before) / 1e9


def used_by_sessions(server: demo.EmbeddedServer) -> float:
    """Processor seconds of all sessions that have ended."""
    fields = Path(f"/proc/{server.postmaster_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def in_turn() -> list[str]:
    return random.sample(ARMS, len(ARMS))


def unchanged(connections: dict[str, Connection], tracks: int, seconds: Seconds) -> None:
    kinds = {"untouched": "has_audio = true", "same value": "stage = stage"}
    for start in range(0, tracks, tracks // CHUNKS):
        last = min(start + tracks // CHUNKS, tracks) - 1
        for kind, change in kinds.items():
            statement = CHUNK.format(change=change, first=start, last=last)
            for arm in in_turn():
                seconds[kind, arm].append(timed(connections[arm], statement))


def bulk(connections: dict[str, Connection], seconds: Seconds) -> None:
    for connection in connections.values():
        connection.execute("VACUUM tracks")
        connection.execute("CHECKPOINT")
    for arm in in_turn():
        change = "UPDATE tracks SET stage = 'audio_ready'"
        seconds["bulk", arm].append(timed(connections[arm], change))


def singles(
    server: demo.EmbeddedServer, connections: dict[str, Connection], seconds: Seconds
) -> None:
    """By pgbench: seconds per change, as each of the sessions sees it."""
    script = Path(tempfile.mkstemp(suffix=".sql")[1])
    script.write_text(SINGLE)
    try:
        for connection in connections.values():
            connection.execute(SINGLES.encode())
            connection.execute("VACUUM tracks, audio_tasks")
        for arm in in_turn():
            command = [binaries.installed() / "pgbench", "-n", "-D", "i=-1", "-f", script]
            command += ["-c", str(CLIENTS), "-j", "2", "-t", str(CHANGES)]
            command.append(server.url(f"arm_{arm}"))
            before = used_by_sessions(server)
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            used = (used_by_sessions(server) - before) / (CLIENTS * CHANGES)
            latency = re.search(r"latency average = ([\d.]+) ms", done.stdout)
            assert latency is not None, done.stdout
            seconds["single, 4 clients", arm].append((float(latency[1]) / 1000, used))
            made = "SELECT count(*) FROM audio_tasks WHERE task_type = 'translate'"
            rows = connections[arm].execute(made).fetchone()
            assert rows == (CLIENTS * CHANGES if arm in ("ours", "field") else 0,), (arm, rows)
    finally:
        script.unlink()


def show(seconds: Seconds) -> None:
    for which, name in enumerate(("clock", "processor")):
        print(f"\n{name:20}{''.join(f'{arm:>10}' for arm in ARMS)}    (milliseconds, medians)")
        for kind in TARGETS:
            medians = [statistics.median(t[which] for t in seconds[kind, arm]) for arm in ARMS]
            print(f"{kind:20}{''.join(f'{median * 1000:10.3f}' for median in medians)}")


def judged(seconds: Seconds, kind: str, target: float) -> results.Result:
    """By the clock; beside no trigger (corrected by the noise), or beside the field's."""

    def ratio(arm: str, base: str) -> float:
        pairs = zip(seconds[kind, arm], seconds[kind, base], strict=True)
        return statistics.median(a[0] / b[0] for a, b in pairs)

    def median(arm: str) -> str:
        return f"{statistics.median(t[0] for t in seconds[kind, arm]) * 1000:.3g} ms"

    noise = ratio("twin", "none") if target > 1 else 1.0
    base, name = ("none", "no trigger") if target > 1 else ("field", "the incident's trigger")
    reference = f"{median(base)}, {name}" + (f", noise {noise:.2f}" if target > 1 else "")
    value = ratio("ours", base) / noise
    return results.Result(f"trigger, {kind}", median("ours"), reference, value, target)


if __name__ == "__main__":
    main()
