"""A read made into a query, and a query's rows made into a frame."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, cast

import pandas as pd
import sqlalchemy as sa
from psycopg import adapters

from queue_insights.buckets import edges
from queue_insights.database import Unheld
from queue_insights.errors import InputError
from queue_insights.forecast.steps import HISTORY
from queue_insights.pipeline import Step, nearest, parse_duration
from queue_insights.reads import LARGEST, READS, STATES, chosen_failure, chosen_ids
from queue_insights.schema import AnySchema, Schema
from queue_insights.sql import Query

_LOG = logging.getLogger("queue_insights")
SHORTEST = timedelta(days=14)  # a forecast's history, even where much has happened
ROWS = 1_000_000  # completions in HISTORY above which a forecast looks back less


def query(
    schema: AnySchema, now: datetime, name: str, steps: Sequence[Step] | None = None, **given: Any
) -> Query:
    """The query that answers the read *name* about *steps* (default all) at the moment *now*, for
    the parameters *given* (others as in READS).

    Raises InputError for a parameter that will not do.
    """
    given = {option.name: option.default for option in READS[name].options} | given
    context, values = {"task": given.get("task") is not None}, dict(given)
    if "since" in given:
        context["regular"], times = _times(now, given)
        values |= times
    elif name == "eta":
        values |= {"zero": now - HISTORY, "start": now - given["history"]}
    if "start" in values:
        steps = None  # whichever is shown, history reckons with all of them
    if "sources" in given:
        context |= _sources(schema, given["sources"])
    chosen = {"ids": chosen_ids(given.get("ids")), "failure": chosen_failure(given.get("failure"))}
    values |= chosen
    _check(given.get("state"), given.get("limit"))
    for option in ("limit", "state", *chosen):
        context[option] = values.get(option) is not None
    text = schema.render(f"{name}.sql", steps, counts=READS[name].counts, **context)
    return Query(text, values, frozenset(READS[name].counts))


def _times(now: datetime, given: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether all buckets are of one length, and the times at which the first begins and the last
    ends; without buckets, only since when."""
    if "bucket" not in given:
        return True, {"start": now - parse_duration(given["since"], "since")}
    found = edges(now, given["since"], given["bucket"], given["zone"])
    length = parse_duration(given["bucket"], "bucket")
    regular = all(later - earlier == length for earlier, later in pairwise(found))
    times = {"start": found[0], "stop": found[-1]}
    return regular, times | ({"bucket": length} if regular else {"edges": found})


def _check(state: Any, limit: Any) -> None:
    if state not in (None, *STATES):
        expected = f"expected one of {', '.join(STATES)}{nearest(state, STATES)}"
        raise InputError(f"unknown state {state!r}: {expected}")
    if limit is not None and not (type(limit) is int and 0 <= limit <= LARGEST):
        raise InputError(f"limit: found {limit!r}, expected a number from zero to {LARGEST:,}")


def supposed(
    tasks: Sequence[str],
    speed: Mapping[str, float | str] | None,
    extra: Mapping[str, int | str] | None,
    backlog: pd.DataFrame | None,
) -> tuple[dict[str, float], dict[str, int]]:
    """The factor of each task in *speed*, and how many tracks more wait at each in *extra*, where a
    state stands for those whom the *backlog* has in it. Raises InputError."""
    for name, given in (("speed", speed), ("extra", extra)):
        for task in given or {}:
            if task not in tasks:
                expected = f"expected one of {', '.join(tasks)}{nearest(task, tasks)}"
                raise InputError(f"{name}: unknown task {task!r}: {expected}")
    factors = {task: _factor(task, given) for task, given in (speed or {}).items()}
    if backlog is None:
        return factors, {}
    return factors, {task: _items(task, given, backlog) for task, given in (extra or {}).items()}


def _factor(task: str, given: float | str) -> float:
    """How many times as fast *task* is supposed to be worked on."""
    try:
        found = float(given)
    except (TypeError, ValueError):
        found = 0.0
    if not 0.001 <= found <= 1000:
        raise InputError(f"speed of {task}: found {given!r}, expected a factor such as 2")
    return found


def _items(task: str, given: int | str, backlog: pd.DataFrame) -> int:
    """How many tracks more are supposed to wait for *task*: a number, or all in a state there."""
    moving = ("missing", "pending", "retryable", "backing_off", "running")  # reckoned with already
    idle = [state for state in STATES if state not in moving]
    if given in idle:
        return int(
            backlog.loc[backlog["task_type"] == task, str(given)].sum()
        )  # none of a job done
    text = str(given)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        expected = f"expected a number, or one of {', '.join(idle)}{nearest(given, idle)}"
        raise InputError(f"extra of {task}: found {given!r}, {expected}")
    return int(text)


def _sources(schema: AnySchema, asked: bool) -> dict[str, Any]:
    """The views that an audit reads as well: the name of each, or None."""
    assert isinstance(schema, Schema)  # of jobs there is no audit
    names = {name: schema.dashboards.get(name) for name in ("task_summary", "audio_progress")}
    return {"sources": asked} | {name: view and view.table for name, view in names.items()}


def enough(connection: sa.Connection, schema: AnySchema, now: datetime) -> timedelta:
    """How far a forecast looks back: a busy queue says as much in two weeks, at a third of the
    cost. By the planner's guess of how many rows were completed in HISTORY."""
    recent = Query(f"EXPLAIN (FORMAT JSON) {schema.render('recent.sql')}", {"start": now - HISTORY})
    plan = recent.rows(connection).scalar_one()[0]["Plan"]
    return max(SHORTEST, min(HISTORY, HISTORY * (ROWS / max(float(plan["Plan Rows"]), 1.0))))


_DTYPES = {
    **dict.fromkeys(("int2", "int4", "int8"), "Int64"),
    **dict.fromkeys(("float4", "float8"), "float64"),
    **dict.fromkeys(("timestamptz", "timestamp"), "datetime64[us, UTC]"),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "uuid"), "str"),
    "bool": "boolean",
}


def fetch(connection: sa.Connection, query: Query) -> pd.DataFrame:
    """The query's rows as a frame whose dtypes depend on the query only, not on its rows: counts
    ``int64``, other integers ``Int64`` (they may be null), text and what Postgres knows no type of
    Python for ``str``, times ``datetime64[us, UTC]``. How many times no frame can hold (infinity,
    44 BC: they are null there) is logged."""
    before = Unheld.count
    try:
        result = query.rows(connection)
    except sa.exc.DataError as error:
        if "id" not in query.values:
            raise
        said = cast(Any, error.orig).diag.message_primary
        raise InputError(f"id: found {query.values['id']!r}: {said}") from None
    described = _described(result)
    frame = _frame(result.all(), described, query)
    _tell(Unheld.count - before)
    return frame


def pages(connection: sa.Connection, query: Query, size: int) -> Iterator[pd.DataFrame]:
    """As ``fetch``, but read by a cursor of the server's, as frames of *size* rows: at least one,
    which may be empty."""
    before = Unheld.count
    with query.rows(connection, yield_per=size) as result:
        described, read = _described(result), result.partitions(size)
        yield _frame(next(read, []), described, query)
        for rows in read:
            yield _frame(rows, described, query)
    _tell(Unheld.count - before)


def _tell(unheld: int) -> None:
    if unheld:
        _LOG.warning(f"{unheld} times, such as infinity or 44 BC, are shown as missing")


def _described(result: sa.CursorResult[Any]) -> list[Any]:
    """The columns as the driver has them, who forgets them once all rows are fetched."""
    assert result.cursor is not None
    return list(result.cursor.description)


def _frame(rows: Sequence[Any], described: list[Any], query: Query) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(rows, columns=[name for name, *_ in described])
    for name, code, *_ in described:
        info = adapters.types.get(code)  # of an array it is that of its elements
        of_type = _DTYPES.get(info.name) if info and info.oid == code else None
        dtype: Any = "int64" if name in query.counts else of_type if info else "str"
        if dtype == "datetime64[us, UTC]":
            frame[name] = pd.to_datetime(frame[name], utc=True)
        if dtype is not None:
            frame[name] = frame[name].astype(dtype)
        if info and info.name == "bpchar":  # padded with blanks that count for nothing
            frame[name] = frame[name].str.rstrip(" ")
    return frame
