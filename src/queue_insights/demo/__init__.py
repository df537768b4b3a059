"""The incident, in a real Postgres that needs no installing: for the demo and for tests."""

from importlib.resources import files
from typing import Any

import psycopg

from queue_insights.demo.server import EmbeddedServer
from queue_insights.errors import InputError

__all__ = ["EmbeddedServer", "create_schema"]

SCRIPTS = {"a": ["schema.sql"], "b": ["schema.sql", "migrate_a_to_b.sql"]}


def create_schema(connection: psycopg.Connection[Any], variant: str) -> None:
    """Create the empty tables, triggers and dashboard views of a variant in the current schema.

    ``variant``: "a" (by track) or "b" (by subject: variant A, then its migration). The caller
    commits. Raises InputError for any other variant.
    """
    if variant not in SCRIPTS:
        raise InputError(f"variant {variant!r} is not known; use 'a' or 'b'")
    for script in SCRIPTS[variant]:
        connection.execute(files(__name__).joinpath("sql", script).read_bytes())
