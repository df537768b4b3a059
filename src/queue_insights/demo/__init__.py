"""The incident, in a real Postgres that needs no installing: for the demo and for tests."""

from queue_insights.demo.incident import (
    Seeded,
    create_schema,
    default_url,
    migrate,
    seed,
    seeded,
)
from queue_insights.demo.server import EmbeddedServer

__all__ = [
    "EmbeddedServer",
    "Seeded",
    "create_schema",
    "default_url",
    "migrate",
    "seed",
    "seeded",
]
