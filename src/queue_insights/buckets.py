"""Spans of time cut into buckets: whole hours or days of a time zone, across clock changes."""

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from queue_insights.errors import InputError
from queue_insights.pipeline import nearest, parse_duration

MOST = 20_000  # of each step: more would be a slip of the unit
_CALENDAR = re.compile(r"(\d+)\s*([dw])", re.IGNORECASE)


def time_zone(zone: str, name: str = "zone") -> ZoneInfo:
    """The time zone of that IANA name. Raises InputError, naming the parameter *name*."""
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
    and ``1W`` are calendar days and weeks (from Monday) of *zone*; ``1h`` or ``15min`` are so many
    minutes, counted from its midnight. Raises InputError for a malformed argument, and for more
    than 20,000 buckets.
    """
    where, step = time_zone(zone), parse_duration(bucket, "bucket")
    now = now.astimezone(UTC)  # elsewhere, a day's subtraction follows the clock on the wall
    first = now - parse_duration(since, "since")
    if (now - first) / step > MOST:
        raise InputError(
            f"bucket: {bucket} over {since} makes more than {MOST:,} buckets of each step; "
            "expected longer buckets or a shorter time"
        )
    day = first.astimezone(where).date()
    begins: Iterator[datetime]
    if calendar := _CALENDAR.fullmatch(bucket.strip()):
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
