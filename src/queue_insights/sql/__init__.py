"""SQL as files: rendered by jinja2, with every name and every text quoted.

A template prints only what is SQL already (``Markup``) and whole numbers. A name or a text that
did not go through one of the filters ``id``, ``text`` or ``value`` is an error, so that nothing
from a pipeline file or a database can become SQL by accident. What varies from call to call stands
in the files as ``:name`` and is bound when a query runs; ``Query.sql`` writes it out instead.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy.dialects import postgresql

WIDTH = 116  # columns of a wrapped list, with its indentation

_PACKAGE = Path(__file__).parents[1]
_BIND = re.compile(r"\\(:)|(?<![:\w\\]):(\w+)")
# Of a driver's dialect, quoted names have each % twice.
_NAMES = postgresql.dialect(paramstyle="named").identifier_preparer  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Query:
    """A rendered statement and the values of its ``:name`` parameters.

    ``counts`` are the columns that number rows: never null, so int64 in a frame.
    """

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)
    counts: frozenset[str] = frozenset()

    def rows(self, connection: sa.Connection) -> sa.CursorResult[Any]:
        """Run the statement."""
        return connection.execute(sa.text(self.text), dict(self.values))

    @property
    def sql(self) -> str:
        """The statement as psql runs it, its values written out (those that it has: others stay
        ``:name``, which psql takes for a variable)."""

        def written(found: re.Match[str]) -> str:
            colon, name = found.groups()
            known = name in self.values
            return colon or (unescaped(value(self.values[name])) if known else found[0])

        return _BIND.sub(written, self.text)


def identifier(name: str) -> Markup:
    """*name* as SQL writes it, in double quotes where it needs them."""
    return escaped(_NAMES.quote(name))


def text(value: str) -> Markup:
    """*value* as a literal that means the same under any standard_conforming_strings."""
    quoted = value.replace("'", "''")
    if "\\" in quoted:
        return escaped("E'" + quoted.replace("\\", "\\\\") + "'")
    return escaped(f"'{quoted}'")


def value(given: Any) -> Markup:
    """A Python value as an SQL literal: None, text, a number, a time, a duration or a list."""
    match given:
        case None:
            return Markup("NULL")
        case bool() | int() | float():
            return Markup(str(given).lower())
        case datetime():
            at = given.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
            return escaped(f"timestamptz '{at}+00'")
        case timedelta():
            seconds = given.total_seconds()
            minutes = f"{seconds / 60:.0f} min"
            return Markup(
                f"interval '{seconds:.6f} s'" if seconds % 60 else f"interval '{minutes}'"
            )
        case list() | tuple():
            return Markup(f"ARRAY[{wrapped(map(value, given), 8)}]")
        case _:
            return text(str(given))


def unescaped(rendered: str) -> str:
    """Rendered SQL without the backslashes that keep its colons from being parameters."""
    return rendered.replace("\\:", ":")


def wrapped(
    items: Iterable[str], indent: int = 0, before: int | None = None, separator: str = ", "
) -> Markup:
    """*items* with a *separator*, on as many lines as they need, all but the first indented; on
    the first, *before* columns (default as many) are taken already."""
    lines, taken = [""], indent if before is None else before
    for item in items:
        if lines[-1] and taken + len(lines[-1]) + len(item) > WIDTH:
            taken = indent
            lines.append("")
        lines[-1] += item + separator
    lines = [line.rstrip() for line in lines]
    return Markup(("\n" + " " * indent).join(lines).removesuffix(separator.strip()))


def or_zero(column: str) -> Markup:
    """A count from an outer join, zero where there is nothing to count."""
    return Markup(f"coalesce({identifier(column)}, 0) AS {identifier(column)}")


def escaped(quoted: str) -> Markup:
    """*quoted* with its colons kept from being read as parameters."""
    return Markup(quoted.replace(":", "\\:"))


def _only_sql(found: Any) -> Any:
    if isinstance(found, Markup) or (isinstance(found, int) and not isinstance(found, bool)):
        return found
    raise TypeError(f"{found!r} is not SQL: a template must quote it by id, text or value")


@cache
def environment(kind: str) -> Environment:
    """The templates for one kind of queue, whose relations are in the folder of that name."""
    folders = ("sql", f"sql/{kind}", "sql/catalogue", "actions/sql", "ddl/sql")
    made = Environment(
        loader=FileSystemLoader([_PACKAGE / folder for folder in folders]),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_only_sql,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"id": identifier, "text": text, "value": value}
    made.filters |= {"wrapped": wrapped, "or_zero": or_zero, "sql": Markup}
    return made


def render(kind: str, name: str, context: Mapping[str, Any]) -> str:
    """The template *name* (``backlog.sql``) as SQL for SQLAlchemy's ``text``: its ``:name``
    parameters still to be bound, colons in quoted names and texts escaped."""
    return environment(kind).get_template(name).render(context).strip()
