"""Spans of time cut into buckets: whole hours or days of a time zone, across clock changes."""

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from queue_insights.errors import InputError
from queue_insights.pipeline import nearest, parse_duration

MOST = 20_000  # of each step: more would be a slip of the unit
_CALENDAR = re.compile(r"(\d+)\s*([dw])", re.IGNORECASE)
TIME = postgresql.TIMESTAMP(timezone=True)


def length(value: str | timedelta, name: str) -> timedelta:
    """*value* as a duration; raises InputError, naming the parameter *name*, for anything else."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise InputError(f"{name}: found {value!r}, {error}") from None


def time_zone(zone: str, name: str = "zone") -> ZoneInfo:
    """The time zone of that IANA name; raises InputError, naming the parameter *name* and the
    nearest time zone, for no such."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise InputError(
            f"{name}: unknown time zone {zone!r}: expected a name such as Europe/Berlin or UTC"
            f"{nearest(zone, available_timezones())}"
        ) from None


def edges(
    now: datetime, since: str | timedelta, bucket: str = "1h", zone: str = "UTC"
) -> list[datetime]:
    """Where the buckets of the last *since* begin (UTC), and where the last one will end.

    All are whole: the first begins at or before ``now - since``, the last has *now* in it. ``1D``
    and ``1W`` are calendar days and weeks (from Monday) of *zone*, 23 or 25 hours long where its
    clock changes; ``1h`` or ``15min`` are so many minutes, counted from its midnight.

    Raises InputError for a malformed argument, and for more than 20,000 buckets.

    >>> edges(datetime(2026, 3, 30, 9, tzinfo=UTC), "1D", "1D", "Europe/Berlin")  # doctest: +SKIP
    [2026-03-28 23:00 UTC, 2026-03-29 22:00 UTC, 2026-03-30 22:00 UTC]
    """
    where, step = time_zone(zone), length(bucket, "bucket")
    now = now.astimezone(UTC)  # elsewhere, a day's subtraction follows the clock on the wall
    first = now - length(since, "since")
    if (now - first) / step > MOST:
        raise InputError(
            f"bucket: {bucket} over {since} makes more than {MOST:,} buckets of each step; "
            "expected longer buckets or a shorter time"
        )
    calendar = _CALENDAR.fullmatch(bucket.strip()) if isinstance(bucket, str) else None
    day = first.astimezone(where).date()
    begins: Iterator[datetime]
    if calendar:
        monday = timedelta(day.weekday()) if calendar[2].lower() == "w" else timedelta()
        begins = _midnights(day - monday, step.days, where)
    else:
        midnight = next(_midnights(day, 1, where))
        begins = (midnight + i * step for i in itertools.count((first - midnight) // step))
    found = [next(begins)]
    while found[-1] <= now:
        found.append(next(begins))
    return found


def _midnights(day: date, days: int, where: ZoneInfo) -> Iterator[datetime]:
    """The first moment of each *days*-th day from *day* on, in UTC; a day that was skipped (as in
    Samoa, 2011) has none."""
    last = None
    for i in itertools.count():
        # Of a midnight that comes twice this is the first, of one that does not, the jump itself.
        moment = datetime.combine(day + timedelta(i * days), time(), where).astimezone(UTC)
        if moment != last:
            yield moment
        last = moment


def constant(time: datetime) -> sa.ColumnElement[datetime]:
    """*time* as a value to compare a column with."""
    return sa.literal(time, TIME)


class Buckets:
    """Buckets in SQL: each has a number, from 1 on; *edges* is what ``edges`` returns."""

    def __init__(self, edges: list[datetime]):
        self.start = constant(edges[0])
        self.count = len(edges) - 1
        # Once in the statement, however often it is used: there may be thousands.
        text = ",".join(edge.isoformat() for edge in edges)
        array = sa.cast(sa.literal(f"{{{text}}}"), postgresql.ARRAY(TIME))
        self._edges = sa.select(array.label("edges")).cte("span")

    def number(self, time: sa.ColumnElement[datetime]) -> sa.ColumnElement[int]:
        """The number of the bucket that *time* is in: 0 before the first."""
        edges = sa.select(self._edges.c.edges).scalar_subquery()
        return sa.func.width_bucket(time, edges, type_=sa.Integer())

    def table(self) -> sa.Select[Any]:
        """number and start of every bucket."""
        columns = sa.column("start", TIME)
        edge = sa.func.unnest(self._edges.c.edges).table_valued(columns, with_ordinality="number")
        edge = edge.render_derived(name="edge")
        both = sa.select(sa.cast(edge.c.number, sa.Integer).label("number"), edge.c.start)
        joined = self._edges.join(edge, sa.true())
        return both.select_from(joined).where(edge.c.number <= self.count)


class Intervals:
    """Buckets of *width* seconds, numbered from *zero* on without a list of them, for what happened
    since *start*."""

    def __init__(self, zero: datetime, start: datetime, width: int):
        self.start = constant(start)
        self._zero, self._width = constant(zero), width

    def number(self, time: sa.ColumnElement[datetime]) -> sa.ColumnElement[int]:
        """The number of the interval that *time* is in: negative before the first."""
        seconds = sa.func.date_part("epoch", time - self._zero)
        return sa.cast(sa.func.floor(seconds / self._width), sa.Integer)


Spans = Buckets | Intervals
