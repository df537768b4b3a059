"""What the tests of faults share: commands and how they fail, a queue that is slow to read."""

import psycopg
from click.testing import CliRunner, Result

from conftest import Bench
from operating import operable
from processes import SLEEPS, until
from queue_insights import demo
from queue_insights.cli import main
from queue_insights.database import READ_URL

READS = (
    *("backlog", "audit", "missing", "upcoming", "tasks", "orphans"),
    *("throughput", "durations", "flow", "eta"),
)
# Whoever reads a track through us sleeps, while the switch is on.
SLOW = """
    CREATE TABLE slow (seconds float8); INSERT INTO slow VALUES (60);
    ALTER TABLE tracks RENAME TO tracks_table;
    CREATE VIEW tracks AS SELECT spotify_track_id, title, updated_at,
        CASE WHEN pg_sleep((SELECT CASE current_setting('application_name')
            WHEN 'queue-insights' THEN seconds ELSE 0 END FROM slow)) IS NOT NULL THEN stage
        END AS stage
    FROM tracks_table
"""
MINE = """
    SELECT oid::regclass::text FROM pg_class WHERE relnamespace = to_regnamespace('queue_insights')
    UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1
"""


def command(
    url: str, *arguments: str, input: str | bytes | None = None, **environment: str
) -> Result:
    result = CliRunner(env={READ_URL: url, **environment}).invoke(main, arguments, input)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result


def failure(result: Result) -> str:
    """The one line with which a command has failed, after its progress."""
    assert (result.exit_code, result.stdout) == (1, "")
    *progress, line = result.stderr.splitlines()
    assert all(" (run 1): " in said for said in progress), result.stderr
    assert line.startswith("queue-insights: ")
    return line


def queue_on(server: demo.EmbeddedServer) -> Bench:
    url = server.url("postgres")
    with psycopg.connect(url) as connection:
        demo.create_schema(connection, "b")
    return Bench(url, "b", psycopg.connect(url, autocommit=True), operable(url))


def asleep(bench: Bench) -> None:
    """Return once somebody reads a track through us."""
    until(lambda: bench.sql(SLEEPS), "a reader to sleep")
