"""What is in the way of the reads and the actions, and the statement or setting that mends it.

It writes nothing, and of the rows it only counts those that no history can show. A role that may do
no more than SELECT gets an answer to everything.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.actions.privileges import lacking
from queue_insights.database import READ_URL, WRITE_URL, Moment
from queue_insights.ddl.trigger import sets, triggers
from queue_insights.errors import QueueInsightsError
from queue_insights.formats import duration
from queue_insights.queue import Queue
from queue_insights.schema import KIND, Schema, Table, allowed_stages, literals
from queue_insights.sql import Query, identifier, render, unescaped

OLDEST_SUPPORTED = 13  # major version of Postgres
CLOCK_SKEW = timedelta(seconds=2)  # beyond which retry times set by workers mislead
REPLAY_LAG = timedelta(minutes=5)  # beyond which a standby's figures do
LONG_HISTORY = 1_000_000  # task rows, from which on indexes for the reads of history are worth it
IN_ORDER = 0.9  # correlation of completed_at with the order of rows, for a BRIN index to find some


Level = Literal["ok", "note", "fix"]


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis: ``ok``, ``note`` (nothing to mend) or ``fix`` (with what to do)."""

    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.level:<4} {self.text}"


Findings = Iterator[Finding]


def _check(good: object, fine: str, otherwise: str, level: Level = "note") -> Finding:
    return Finding("ok", fine) if good else Finding(level, otherwise)


def examine(queue: Queue) -> list[Finding]:
    """Examine connections, clock, tables, privileges, indexes, history, dashboards and triggers.

    What goes wrong while looking is a finding, too: nothing is raised for what the server refuses.

    >>> print(*examine(queue), sep="\\n")
    """
    findings: list[Finding] = []
    for check, others_need_it in _CHECKS.items():
        try:
            findings += check(queue)
        except QueueInsightsError as error:
            findings.append(Finding("fix", f"{check.__name__.strip('_')}: {error}"))
            if others_need_it:
                break
    return findings


def _reads(queue: Queue) -> Findings:
    with queue.database.read() as moment:
        number = int(_scalar(moment, "SHOW server_version_num"))
        version = str(_scalar(moment, "SHOW server_version")).split()[0]
        standby = bool(_scalar(moment, "SELECT pg_is_in_recovery()"))
    where = f"reads: {queue.database.name}, Postgres {version}"
    lag = moment.replay_lag_seconds
    if number < OLDEST_SUPPORTED * 10_000:
        yield Finding("fix", f"{where} is too old: {OLDEST_SUPPORTED} is the oldest supported")
    elif not standby:
        yield Finding("ok", where)
    elif lag is None:
        yield Finding("note", f"{where}, a standby that does not say how far it is behind")
    elif lag > REPLAY_LAG.total_seconds():
        behind = f"a standby {duration(lag)} behind"
        yield Finding("fix", f"{where}, {behind}: name the primary or another in {READ_URL}")
    else:
        yield Finding("note", f"{where}, a standby: figures are {lag:.1f} s old")


def _clock(queue: Queue) -> Findings:
    with queue.database.read() as moment:
        before = now()
        server = _scalar(moment, "SELECT clock_timestamp()")
        after = now()
    ahead = server - before - (after - before) / 2
    agree = abs(ahead) - (after - before) / 2 <= CLOCK_SKEW
    seconds, side = CLOCK_SKEW.total_seconds(), "ahead of" if ahead > timedelta() else "behind"
    fine = f"clock: this machine's and the server's agree within {seconds:g} s"
    differ = f"clock: the server is {abs(ahead).total_seconds():.1f} s {side} this machine"
    why = "ages go by the server's clock, retry times by the workers'"
    yield _check(agree, fine, f"{differ}: set both by NTP ({why})", "fix")


def now() -> datetime:
    """This machine's clock (UTC)."""
    return datetime.now(UTC)


def _tables(queue: Queue) -> Findings:
    schema = queue.schema
    kind = {"a": "A (by track)", "b": "B (by subject)"}[schema.variant]
    both = f"{schema.tracks} and {schema.tasks}"
    yield Finding("ok", f"tables: {both}, variant {kind}, pipeline {queue.pipeline.name}")
    allowed = allowed_stages(schema.tracks)
    if allowed is None:
        column = f"{schema.tracks}.{schema.tracks.roles['stage']}"
        unseen = "so a misspelled one in the pipeline file goes unseen"
        yield Finding("note", f"stages: no CHECK on {column}, {unseen}")
        return
    yield Finding("ok", f"stages: the table allows those of all {len(queue.pipeline.steps)} steps")
    if others := [stage for stage in allowed if stage not in queue.pipeline.stages]:
        yield Finding("note", f"stages that the pipeline file does not name: {', '.join(others)}")


def _privileges(queue: Queue) -> Findings:
    with queue.database.read() as moment:
        role = str(_scalar(moment, "SELECT current_user"))
        missing = lacking(moment.connection, queue.schema, "read")
    fine = f"privileges: {role} may SELECT from both tables"
    yield _check(not missing, fine, f"privileges: {_grants(role, missing)}", "fix")


def _indexes(queue: Queue) -> Findings:
    tracks, tasks = queue.schema.tracks, queue.schema.tasks
    stages = tuple(dict.fromkeys(step.stage for step in queue.pipeline.steps))
    with queue.database.read() as moment:
        yield _index(moment, "for the tracks at a step", tracks, ("stage",), stages)
        yield _index(moment, "for the track of a row", tracks, ("id",))
        yield _index(moment, "for the row of a track", tasks, queue.schema.unique_key)
        by_task = (tasks, ("task_type", "status"), ("pending", "failed"))
        yield _index(moment, "for pending and failed rows", *by_task)
        yield from _history_indexes(moment, queue.schema)


def _index(
    moment: Moment, purpose: str, table: Table, roles: Sequence[str], values: Sequence[str] = ()
) -> Finding:
    """Whether there is an index to find the rows by in which the last of the columns has one of
    the *values* (without any, a unique one), or else the statement that makes it."""
    name, columns = unescaped(table.table), [getattr(table, role) for role in roles]
    what = f"{name} ({unescaped(Markup(', ').join(columns))}) {purpose}"
    if table.kind != "r":
        return Finding("note", f"indexes: {what}: not examined, for {name} is no plain table")
    found = _ask(moment, "indexes.sql", table=name)
    serving = [(index, _served(index, table, roles, values)) for index in found]
    valid = {index.name: served for index, served in serving if served and index.valid}
    broken = [index.name for index, served in serving if served and not index.valid]
    if set().union(*valid.values()) >= set(values or ["key"]):
        return Finding("ok", f"indexes: {what}: {', '.join(sorted(valid))}")
    if broken:
        how = f"REINDEX INDEX CONCURRENTLY {broken[0]};"
        return Finding("fix", f"indexes: {what}: {broken[0]} is not valid: {how}")
    given = {"table": table.table, "columns": columns, "values": values}
    return Finding("fix", f"indexes: none on {what}: {unescaped(render(KIND, 'index.sql', given))}")


def _served(index: Any, table: Table, roles: Sequence[str], values: Sequence[str]) -> set[str]:
    """Those of the *values* whose rows are found by the *index*; of a unique one, whether it is."""
    columns = [table.roles[role] for role in roles]
    if not values:
        return {"key"} if index.is_key and set(index.columns) == set(columns) else set()
    if index.columns[:1] != columns[:1] or index.method not in ("btree", "hash"):
        return set()
    if index.predicate is None:
        return set(values)
    # A list of values or of others; whatever else a predicate may be is not understood.
    listed, rest = literals(index.predicate), re.sub("'([^']|'')*'", "", index.predicate)
    column = unescaped(getattr(table, roles[-1]))
    if column not in rest or re.search(r"\b(AND|OR|NOT|IS)\b|\w\(", rest):
        return set()
    return {value for value in values if (value in listed) != ("<>" in rest)}


def _history_indexes(moment: Moment, schema: Schema) -> Findings:
    """The two indexes that make throughput, durations and eta faster where history is long."""
    tasks, table = schema.tasks, unescaped(schema.tasks.table)
    completed, task_type = unescaped(tasks.completed_at), unescaped(tasks.task_type)
    (size,) = _ask(moment, "size.sql", table=table, column=tasks.roles["completed_at"])
    if size.rows < LONG_HISTORY or tasks.kind != "r":
        return
    valid = [index for index in _ask(moment, "indexes.sql", table=table) if index.valid]
    why = f"indexes: history is long ({size.rows:,} rows), and its reads would be faster by"
    create = f"CREATE INDEX CONCURRENTLY ON {table}"
    by_time = any(index.columns[:1] == [tasks.roles["completed_at"]] for index in valid)
    if not by_time and (size.ordered or 0) >= IN_ORDER:
        brin = f"USING brin ({completed}) WITH (pages_per_range = 32)"
        yield Finding("note", f"{why} {create} {brin} WHERE {completed} IS NOT NULL;")
    if not any(index.predicate == f"({completed} IS NULL)" for index in valid):
        yield Finding("note", f"{why} {create} ({task_type}) WHERE {completed} IS NULL;")


def _history(queue: Queue) -> Findings:
    with queue.database.read() as moment:
        if lacking(moment.connection, queue.schema, "read"):
            return
        unseen = Query(queue.schema.render("unseen.sql")).rows(moment.connection).one()
    yield _check(
        not any(unseen),
        "history: every row of a track that has moved on says when",
        f"history: throughput, durations and flow leave out {unseen.undated:,} completed rows "
        f"without completed_at and {unseen.moved_on:,} running or skipped ones whose track has "
        "moved on",
    )


def _dashboards(queue: Queue) -> Findings:
    for role, name in dict(queue.pipeline.dashboards).items():
        absent = f"dashboards: no view {name}: `audit --sources` says null for it"
        yield _check(role in queue.schema.dashboards, f"dashboards: view {name}", absent)


def _triggers(queue: Queue) -> Findings:
    schema = queue.schema
    tasks = unescaped(schema.tasks.table)
    with queue.database.read() as moment:
        found = triggers(moment.connection, schema)
    writers = [t for t in found if t.does and (t.on_tracks or t.on_tasks)]
    for t in writers:
        says = f"trigger {t.name} on {t.table_name} writes to {tasks} (function {t.function})"
        disabled = f"{says}, but it is disabled; to enable it: {t.enable}"
        yield _check(t.enabled in "OA", says, disabled)
    inserters = [t for t in writers if t.on_tracks and t.enabled in "OA" and "insert" in t.does]
    if len({t.function for t in inserters}) > 1:  # one may serve INSERT and UPDATE by two
        names = ", ".join(t.name for t in inserters)
        how = f"keep one, such as by {inserters[-1].drop}"
        yield Finding("fix", f"triggers {names} all insert into {tasks}: {how}")
    if not writers:
        yield Finding("ok", f"triggers: none writes to {tasks}, so only the application makes rows")
    for table in (schema.tracks, schema.tasks):
        column = f"{table}.{table.roles['updated_at']}"
        is_kept = sets(found, table, "updated_at")
        yield _check(is_kept, f"triggers: one keeps {column}", f"triggers: none keeps {column}")


def _actions(queue: Queue) -> Findings:
    """The connection that actions use and what it may do. A reader lacks it on purpose, so it is
    only noted, unless QUEUE_INSIGHTS_WRITE_URL says that there is to be writing."""
    level: Level = "fix" if queue.database.separate_writes else "note"
    where = f"actions: {queue.database.write_name}"
    with queue.database.read(primary=True) as moment:
        if _scalar(moment, "SELECT pg_is_in_recovery()"):
            yield Finding(level, f"{where} is a standby: name the primary in {WRITE_URL}")
            return
        role = str(_scalar(moment, "SELECT current_user"))
        if _scalar(moment, "SELECT current_setting('default_transaction_read_only')") == "on":
            to = unescaped(identifier(role))
            how = f"ALTER ROLE {to} SET default_transaction_read_only = off;"
            yield Finding(level, f"{where} is read-only for {role}: {how}")
        missing = lacking(moment.connection, queue.schema, "insert")
    fine = f"{where}: {role} has the privileges that actions need"
    yield _check(not missing, fine, f"{where}: {_grants(role, missing)}", level)


def _grants(role: str, missing: Mapping[str, Iterable[str]]) -> str:
    to = unescaped(identifier(role))
    statements = (f"GRANT {', '.join(p)} ON {on} TO {to};" for on, p in missing.items())
    return f"{role} lacks some, to be had by {' '.join(statements)}"


def _scalar(moment: Moment, statement: str) -> Any:
    return moment.connection.scalar(sa.text(statement))


def _ask(moment: Moment, file: str, **values: Any) -> Sequence[Any]:
    return Query(render(KIND, file, {}), values).rows(moment.connection).all()


# Each check, and whether the ones after it have nothing to say once it failed.
_CHECKS: dict[Callable[[Queue], Findings], bool] = {
    _reads: True,
    _clock: False,
    _tables: True,
    _privileges: False,
    _indexes: False,
    _history: False,
    _dashboards: False,
    _triggers: False,
    _actions: False,
}
