"""See, explain and repair a Postgres-backed work queue from notebooks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queue_insights.queue import Queue

__all__ = ["Queue", "connect"]


def __getattr__(name: str) -> object:
    """``Queue``, imported only when somebody asks: the command line starts without pandas."""
    if name == "Queue":
        from queue_insights.queue import Queue

        return Queue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def connect(pipeline: str | Path = "karaoke") -> Queue:
    """The queue that the environment names, read through *pipeline* (a shipped name or a file).

    The database is QUEUE_INSIGHTS_URL (reads) and QUEUE_INSIGHTS_WRITE_URL (actions; default the
    same), or what libpq's PGSERVICE and PG* variables say; with none of these, the embedded demo.
    Connects on the first read. Raises InputError for a bad pipeline file or URL.

    >>> queue = connect()
    >>> queue.backlog()
    """
    from queue_insights.database import READ_URL, Database, environment
    from queue_insights.pipeline import load
    from queue_insights.queue import Queue

    loaded = load(pipeline)
    urls = environment()
    if urls is None:
        from queue_insights.demo import default_url

        note = f"no database named ({READ_URL} or PG*): using the embedded DEMO database"
        print(f"queue-insights: {note}", file=sys.stderr)
        urls = default_url(), default_url()
    return Queue(Database(*urls), loaded)
