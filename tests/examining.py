"""What the tests of the doctor share: an examination, and what its lines say."""

import re

from queue_insights import doctor, pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue


def examine(url: str, write_url: str | None = None) -> list[str]:
    return list(map(str, doctor.examine(Queue(Database(url, write_url), pipeline.load()))))


def one(lines: list[str], *parts: str) -> str:
    """The one line that has all of *parts*."""
    found = [line for line in lines if all(part in line for part in parts)]
    assert len(found) == 1, (parts, lines)
    return found[0]


def fixes(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("fix")]


def remedy(line: str) -> str:
    """The statement at the end of a finding."""
    found = re.search(r"\b(CREATE|REINDEX|GRANT|DROP|ALTER) .*;$", line)
    assert found, line
    return found[0]


def option(url: str, setting: str) -> str:
    """*url* with a setting for its sessions."""
    return f"{url}{'&' if '?' in url else '?'}options=-c{setting}"
