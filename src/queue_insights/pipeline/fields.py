"""What the fields of a pipeline file are made of: names, durations, limits."""

import contextlib
import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from queue_insights.errors import InputError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)\s*", re.IGNORECASE | re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # Postgres has no text with one of these
_TABLE = re.compile(r'(?:(?P<schema>"(?:[^"]|"")+"|[^".]+)\.)?(?P<name>"(?:[^"]|"")+"|[^".]+)')


def parse_duration(value: object, name: str = "") -> timedelta:
    """A positive duration from text: ``30m``, ``1h30m``, ``7D``, ``90s``, ``2w``.

    Raises InputError, naming the parameter *name*, for anything else, bare numbers included: their
    unit would be a guess. Without a *name* it is a ValueError.
    """
    if isinstance(value, timedelta):
        return value
    text = value if isinstance(value, str) else ""
    parts = _DURATION.findall(text)
    problem = "expected a duration such as 90s, 30m, 1h30m or 7d"
    if parts and not _DURATION.sub("", text).strip():
        problem = "expected a duration above zero and below a hundred years"
        with contextlib.suppress(OverflowError):
            units = ({_UNITS[unit[0].lower()]: float(number)} for number, unit in parts)
            total = sum((timedelta(**unit) for unit in units), timedelta())
            if timedelta() < total <= timedelta(days=36_500):
                return total
    if name:
        raise InputError(f"{name}: found {value!r}, {problem}")
    raise ValueError(problem)


def nearest(value: object, names: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest of *names*, or nothing where none is near."""
    close = difflib.get_close_matches(str(value), list(names), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def split_table(name: str) -> tuple[str | None, str]:
    """``schema.table`` or ``table``; a part with a dot in it is written in double quotes."""
    match = _TABLE.fullmatch(name)
    if match is None:
        raise ValueError("expected table or schema.table")

    def plain(part: str) -> str:
        return part[1:-1].replace('""', '"') if part.startswith('"') else part

    schema = match["schema"]
    return (plain(schema) if schema else None), plain(match["name"])


def _table(value: str) -> str:
    split_table(value)
    return value


def _name(value: str) -> str:
    if not value.strip() or _UNSTORABLE.search(value):
        raise ValueError("expected a name")
    return value


Name = Annotated[str, Field(strict=True), AfterValidator(_name)]
TableName = Annotated[Name, AfterValidator(_table)]
Duration = Annotated[timedelta, BeforeValidator(lambda value: parse_duration(value))]
Attempts = Annotated[int, Field(strict=True, ge=1, le=1000)]


class Model(BaseModel):
    """A part of a pipeline file: what it does not know is refused."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class File(Model):
    """What all pipeline files have, whichever kind of queue they describe."""

    name: Name

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change with anything in the file that has a meaning."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
