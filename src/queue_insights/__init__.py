"""See, explain and repair a Postgres-backed work queue from notebooks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queue_insights.actions import OperableQueue
    from queue_insights.actions import OperableQueue as Queue

__all__ = ["Queue", "connect"]


def __getattr__(name: str) -> object:
    """``Queue``, imported only when somebody asks: the command line starts without pandas."""
    if name == "Queue":
        from queue_insights.actions import OperableQueue

        return OperableQueue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def connect(pipeline: str | Path = "karaoke") -> OperableQueue:
    """The queue that the environment names, read through *pipeline* (a shipped name or a file).

    The database is QUEUE_INSIGHTS_URL (reads) and QUEUE_INSIGHTS_WRITE_URL (actions; default the
    same), or what libpq's PGSERVICE and PG* variables say; with none of these, the embedded demo.
    Connects on the first read. Raises InputError for a bad pipeline file or URL.

    >>> queue = connect()
    >>> queue.backlog()
    """
    from queue_insights import database
    from queue_insights import pipeline as pipelines
    from queue_insights.actions import OperableQueue

    loaded = pipelines.load(pipeline)
    urls = database.environment()
    if urls is None:
        from queue_insights import demo

        note = f"no database named ({database.READ_URL} or PG*): using the embedded DEMO database"
        print(f"queue-insights: {note}", file=sys.stderr)
        urls = demo.default_url(), demo.default_url()
    return OperableQueue(database.Database(*urls), loaded)
