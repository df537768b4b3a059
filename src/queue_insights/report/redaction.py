"""Passwords that the environment holds, taken out of what a notebook put out."""

import contextlib
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from queue_insights.database import READ_URL, WRITE_URL


def without_passwords(value: Any) -> Any:
    """*value*, JSON-like, with ``***`` for each password in its texts; keys stay as they are."""
    return _replaced(_passwords(), value)


def _replaced(passwords: re.Pattern[str], value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(passwords, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(passwords, item) for item in value]
    return passwords.sub("***", value) if isinstance(value, str) else value


def _passwords() -> re.Pattern[str]:
    """Matches the passwords, as written and percent-encoded, the longest first."""
    found = {os.environ.get("PGPASSWORD", "")}
    for name in (READ_URL, WRITE_URL):
        with contextlib.suppress(psycopg.ProgrammingError):
            settings = conninfo_to_dict(os.environ.get(name, ""))
            found |= {str(settings.get(key, "")) for key in ("password", "sslpassword")}
    found |= {quote(password, safe="") for password in found}
    # To take out shorter ones would spoil the page, and they are as quickly guessed.
    long = sorted((password for password in found if len(password) >= 6), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, long)) or "(?!)")
