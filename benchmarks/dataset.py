"""Databases seeded with the incident; ``all.py`` has its scripts share one server and its data."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from queue_insights import demo

Database = Callable[..., str]


@contextmanager
def databases(folder: Path | None) -> Iterator[Database]:
    """On the server in *folder*, or one for this block: from (variant, tracks) to the URL of a
    database that holds so much, seeded unless it does. With ``to_change=True`` it is seeded anew,
    and nobody else's."""
    own = Path(tempfile.mkdtemp(prefix="queue-insights-benchmark-", dir="/var/tmp"))
    try:
        with demo.EmbeddedServer(folder or own, {"shared_buffers": "1GB"}) as server:

            def database(variant: str, tracks: int, to_change: bool = False) -> str:
                name = "changed" if to_change else f"{variant}_{tracks}"
                with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
                    there = "SELECT FROM pg_database WHERE datname = %s"
                    if admin.execute(there, [name]).fetchone() is None:
                        admin.execute(f"CREATE DATABASE {name}")
                url = server.url(name)
                if to_change or demo.seeded(url) is None:
                    demo.seed(url, variant, tracks)
                return url

            yield database
    finally:
        shutil.rmtree(own)
