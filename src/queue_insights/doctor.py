"""What is in the way of the reads and the actions, and the statement or setting that mends it.

Looks at catalogs and plans only: it reads no row and writes nothing, and a role that may do no more
than SELECT gets an answer to everything.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from queue_insights.database import READ_URL, WRITE_URL, Moment
from queue_insights.errors import QueueInsightsError
from queue_insights.formats import duration
from queue_insights.indexes import index_findings
from queue_insights.queue import Queue
from queue_insights.schema import Schema, allowed_stages, quoted

OLDEST_SUPPORTED = 13  # major version of Postgres
CLOCK_SKEW = timedelta(seconds=2)  # beyond which retry times set by workers mislead
REPLAY_LAG = timedelta(minutes=5)  # beyond which a standby's figures do


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis: ``ok``, ``note`` (nothing to mend) or ``fix`` (with what to do)."""

    level: Literal["ok", "note", "fix"]
    text: str

    def __str__(self) -> str:
        return f"{self.level:<4} {self.text}"


def doctor(queue: Queue) -> list[Finding]:
    """Examine connections, clock, tables, privileges, indexes, dashboards and triggers.

    What goes wrong while looking is a finding, too: nothing is raised for what the server refuses.

    >>> print(*doctor(queue), sep="\\n")
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


def _reads(queue: Queue) -> Iterator[Finding]:
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


def _clock(queue: Queue) -> Iterator[Finding]:
    with queue.database.read() as moment:
        before = now()
        server = _scalar(moment, "SELECT clock_timestamp()")
        after = now()
    ahead = server - before - (after - before) / 2
    if abs(ahead) - (after - before) / 2 <= CLOCK_SKEW:
        seconds = CLOCK_SKEW.total_seconds()
        yield Finding("ok", f"clock: this machine's and the server's agree within {seconds:g} s")
    else:
        side = "ahead of" if ahead > timedelta() else "behind"
        differ = f"the server is {abs(ahead).total_seconds():.1f} s {side} this machine"
        why = "ages go by the server's clock, retry times by the workers'"
        yield Finding("fix", f"clock: {differ}: set both by NTP ({why})")


def now() -> datetime:
    """This machine's clock (UTC)."""
    return datetime.now(UTC)


def _tables(queue: Queue) -> Iterator[Finding]:
    schema, steps = queue.schema, queue.pipeline.steps
    kind = {"a": "A (by track)", "b": "B (by subject)"}[schema.variant]
    both = f"{schema.tracks.fullname} and {schema.tasks.fullname}"
    yield Finding("ok", f"tables: {both}, variant {kind}, pipeline {queue.pipeline.name}")
    with queue.database.read() as moment:
        allowed = allowed_stages(moment.connection, schema.tracks)
    if allowed is None:
        yield Finding(
            "note",
            f"stages: no CHECK on {schema.tracks.fullname}.{schema.tracks.c.stage.name}, "
            "so a misspelled one in the pipeline file goes unseen",
        )
        return
    yield Finding("ok", f"stages: the table allows those of all {len(steps)} steps")
    if others := [stage for stage in allowed if stage not in queue.pipeline.stages]:
        yield Finding("note", f"stages that the pipeline file does not name: {', '.join(others)}")


def _privileges(queue: Queue) -> Iterator[Finding]:
    with queue.database.read() as moment:
        role = str(_scalar(moment, "SELECT current_user"))
        wanted = {table: ["SELECT"] for table in _names(queue.schema)}
        lacking = list(_lacking(moment, wanted))
    if lacking:
        yield Finding("fix", f"privileges: {_grants(role, lacking)}")
    else:
        yield Finding("ok", f"privileges: {role} may SELECT from both tables")


def _indexes(queue: Queue) -> Iterator[Finding]:
    with queue.database.read() as moment:
        wanted = {table: ["SELECT"] for table in _names(queue.schema)}
        if list(_lacking(moment, wanted)):
            yield Finding("note", "indexes: not examined, for the planner asks for SELECT first")
            return
        for level, text in index_findings(moment.connection, queue.schema):
            yield Finding(level, text)


def _dashboards(queue: Queue) -> Iterator[Finding]:
    for role, name in dict(queue.pipeline.dashboards).items():
        if role in queue.schema.dashboards:
            yield Finding("ok", f"dashboards: view {name}")
        else:
            yield Finding("note", f"dashboards: no view {name}: `audit --sources` says null for it")


_TRIGGERS = sa.text("""
    SELECT t.tgname AS name, t.tgrelid = to_regclass(:tracks) AS on_tracks,
           p.oid::regprocedure::text AS function, p.prosrc AS source,
           t.tgenabled IN ('O', 'A') AS enabled, t.tgtype & 19 = 19 AS before_update
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid IN (to_regclass(:tracks), to_regclass(:tasks)) AND NOT t.tgisinternal
    ORDER BY on_tracks DESC, name
""")


def _triggers(queue: Queue) -> Iterator[Finding]:
    schema = queue.schema
    with queue.database.read() as moment:
        tracks, tasks = _names(schema)
        rows = moment.connection.execute(_TRIGGERS, {"tracks": tracks, "tasks": tasks}).all()
    writes = re.compile(
        r"\b(insert\s+into|merge\s+into|update|delete\s+from)\s+(only\s+)?(\S+\s*\.\s*)?"
        rf"\"?{re.escape(schema.tasks.name)}(?![\w$])",
        re.IGNORECASE,
    )
    writers = [row for row in rows if writes.search(row.source)]
    for row in writers:
        name, on = quoted(row.name), tracks if row.on_tracks else tasks
        says = f"trigger {name} on {on} writes to {tasks} (function {row.function})"
        if row.enabled:
            yield Finding("ok", says)
        else:
            how = f"ALTER TABLE {on} ENABLE TRIGGER {name};"
            yield Finding("note", f"{says}, but it is disabled; to enable it: {how}")
    inserters = [row for row in writers if row.on_tracks and row.enabled and _inserts(row.source)]
    if len({row.function for row in inserters}) > 1:  # one may serve INSERT and UPDATE by two
        names = ", ".join(quoted(row.name) for row in inserters)
        drop = f"DROP TRIGGER {quoted(inserters[-1].name)} ON {tracks};"
        yield Finding(
            "fix", f"triggers {names} all insert into {tasks}: keep one, such as by {drop}"
        )
    if not writers:
        yield Finding("ok", f"triggers: none writes to {tasks}, so only the application makes rows")
    for table, on_tracks in ((schema.tracks, True), (schema.tasks, False)):
        column = table.c.updated_at.name
        if any(r.before_update and r.on_tracks == on_tracks and column in r.source for r in rows):
            yield Finding("ok", f"triggers: one keeps {table.fullname}.{column}")
        else:
            yield Finding("note", f"triggers: none keeps {table.fullname}.{column}")


def _inserts(source: str) -> bool:
    return re.search(r"\b(insert|merge)\s+into\b", source, re.IGNORECASE) is not None


_SEQUENCE = sa.text("SELECT pg_get_serial_sequence(:table, :column)")
# From the catalog: to_regclass would fail for a role that may not look into the schema.
_LEDGER = sa.text("""
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'queue_insights' AND c.relkind = 'r'
""")


def _actions(queue: Queue) -> Iterator[Finding]:
    """The connection that actions use and what it may do. A reader lacks it on purpose, so it is
    only noted, unless QUEUE_INSIGHTS_WRITE_URL says that there is to be writing."""
    level: Literal["note", "fix"] = "fix" if queue.database.separate_writes else "note"
    where = f"actions: {queue.database.write_name}"
    with queue.database.read(primary=True) as moment:
        if _scalar(moment, "SELECT pg_is_in_recovery()"):
            yield Finding(level, f"{where} is a standby: name the primary in {WRITE_URL}")
            return
        role = str(_scalar(moment, "SELECT current_user"))
        if _scalar(moment, "SELECT current_setting('default_transaction_read_only')") == "on":
            how = f"ALTER ROLE {quoted(role)} SET default_transaction_read_only = off;"
            yield Finding(level, f"{where} is read-only for {role}: {how}")
        lacking = list(_lacking_for_actions(moment, queue.schema))
    if lacking:
        yield Finding(level, f"{where}: {_grants(role, lacking)}")
    else:
        yield Finding("ok", f"{where}: {role} has the privileges that actions need")


def _lacking_for_actions(moment: Moment, schema: Schema) -> Iterator[tuple[str, list[str]]]:
    tracks, tasks = _names(schema)
    write = ["SELECT", "INSERT", "UPDATE", "DELETE"]
    yield from _lacking(moment, {tracks: ["SELECT"], tasks: write})
    if not _may(moment, "any_column", tracks, "UPDATE"):  # which it takes to lock a track
        yield tracks, [f"UPDATE ({quoted(schema.tracks.c.updated_at.name)})"]
    column = {"table": tasks, "column": schema.tasks.c.id.name}
    sequence = moment.connection.scalar(_SEQUENCE, column)
    if sequence and not _may(moment, "sequence", sequence, "USAGE"):
        yield f"SEQUENCE {sequence}", ["USAGE"]
    ledger = moment.connection.scalars(_LEDGER).all()
    database = str(_scalar(moment, "SELECT current_database()"))
    if not ledger and not _may(moment, "database", database, "CREATE"):
        yield f"DATABASE {quoted(database)}", ["CREATE"]
    elif ledger and not _may(moment, "schema", "queue_insights", "USAGE"):
        yield "SCHEMA queue_insights", ["USAGE"]
    else:
        yield from _lacking(moment, dict.fromkeys(ledger, write))


def _lacking(moment: Moment, wanted: dict[str, list[str]]) -> Iterator[tuple[str, list[str]]]:
    """The tables and those of the privileges *wanted* on them that the current role lacks."""
    for table, privileges in wanted.items():
        if lacks := [p for p in privileges if not _may(moment, "table", table, p)]:
            yield table, lacks


def _may(moment: Moment, kind: str, name: str, privilege: str) -> bool:
    test = getattr(sa.func, f"has_{kind}_privilege")
    return bool(moment.connection.scalar(sa.select(test(name, privilege))))


def _grants(role: str, lacking: Iterable[tuple[str, list[str]]]) -> str:
    to = quoted(role)
    statements = (f"GRANT {', '.join(privileges)} ON {on} TO {to};" for on, privileges in lacking)
    return f"{role} lacks some, to be had by {' '.join(statements)}"


def _names(schema: Schema) -> tuple[str, str]:
    """The two tables as SQL writes them."""
    return quoted(schema.tracks), quoted(schema.tasks)


def _scalar(moment: Moment, statement: str) -> Any:
    return moment.connection.scalar(sa.text(statement))


# Each check, and whether the ones after it have nothing to say once it failed.
_CHECKS: dict[Callable[[Queue], Iterator[Finding]], bool] = {
    _reads: True,
    _clock: False,
    _tables: True,
    _privileges: False,
    _indexes: False,
    _dashboards: False,
    _triggers: False,
    _actions: False,
}
