"""What is in the way of the reads and the actions, and the statement or setting that mends it.

Looks at catalogs and plans only: it reads no row and writes nothing, and a role that may do no more
than SELECT gets an answer to everything.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import sqlalchemy as sa

from queue_insights.actions import ledger
from queue_insights.database import READ_URL, WRITE_URL, Moment
from queue_insights.errors import QueueInsightsError
from queue_insights.formats import duration
from queue_insights.queries import compile_sql, explain
from queue_insights.queue import Queue
from queue_insights.schema import Schema, allowed_stages, quoted
from queue_insights.states import OPEN
from queue_insights.trigger_catalog import INSERTS, WRITES, Catalog

OLDEST_SUPPORTED = 13  # major version of Postgres
CLOCK_SKEW = timedelta(seconds=2)  # beyond which retry times set by workers mislead
REPLAY_LAG = timedelta(minutes=5)  # beyond which a standby's figures do


# An index that is being built, or whose building failed, is not valid: the planner leaves it out.
_INDEXES = sa.text("""
    SELECT i.indexrelid::regclass::text AS quoted, c.relname AS name, i.indisvalid AS valid,
           i.indpred IS NOT NULL AS partial,
           i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AS is_key,
           array(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k (number, place)
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
                 WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = to_regclass(:table)
    ORDER BY name
""")
_IS_TABLE = sa.text("SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass(:table)")


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
        lacking = ledger.lacking(moment.connection, queue.schema, "read")
    if lacking:
        yield Finding("fix", f"privileges: {_grants(role, lacking)}")
    else:
        yield Finding("ok", f"privileges: {role} may SELECT from both tables")


def _indexes(queue: Queue) -> Iterator[Finding]:
    with queue.database.read() as moment:
        if ledger.lacking(moment.connection, queue.schema, "read"):
            yield Finding("note", "indexes: not examined, for the planner asks for SELECT first")
            return
        yield from _index_findings(moment.connection, queue.schema)


def _index_findings(connection: sa.Connection, schema: Schema) -> Iterator[Finding]:
    """For each index that the reads would like: ``ok``, or ``fix`` and the statement that makes it.

    The planner is asked, with sequential scans off, so partial indexes count where they apply; an
    index counts if it leads with the wanted column, and not while it is invalid.
    """
    connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
    for purpose, index, probes in _wanted(schema):
        assert index.table is not None
        table, columns = quoted(index.table), [column.name for column in index.columns]
        what = f"{table} ({', '.join(columns)}) {purpose}"
        if not connection.scalar(_IS_TABLE, {"table": table}):
            yield Finding("note", f"indexes: {what}: not examined, for {table} is no plain table")
            continue
        found = connection.execute(_INDEXES, {"table": table}).all()
        leading = [i for i in found if i.columns[:1] == columns[:1]]
        if index.unique:
            leading = [i for i in found if i.is_key and set(i.columns) == set(columns)]
        usable = {i.name: i.partial for i in leading if i.valid}
        used = [_used(connection, probe, usable) for probe in probes] or [set(usable)]
        broken = [i.quoted for i in leading if not i.valid]
        if all(used):
            yield Finding("ok", f"indexes: {what}: {', '.join(sorted(set().union(*used)))}")
        elif broken:
            how = f"REINDEX INDEX CONCURRENTLY {broken[0]};"
            yield Finding("fix", f"indexes: {what}: {broken[0]} is not valid: {how}")
        else:
            ddl = compile_sql(sa.schema.CreateIndex(index))
            yield Finding("fix", f"indexes: none on {what}: {ddl};")


def _wanted(schema: Schema) -> Iterator[tuple[str, sa.Index, list[sa.Select[Any]]]]:
    """What for, an index, and queries for which the planner should use it or a better one (none for
    a unique key: that serves whatever names all of its columns)."""
    # Copies: an Index joins the Table that it is made for, and the schema's are not ours.
    tracks, tasks = (t.to_metadata(sa.MetaData()) for t in (schema.tracks, schema.tasks))
    steps, terminal = schema.pipeline.steps, schema.pipeline.terminal
    index = partial(sa.Index, postgresql_concurrently=True)
    goes_on = tracks.c.stage.not_in(terminal) if terminal else None
    at_step = [sa.select(tracks.c.title).where(tracks.c.stage == step.stage) for step in steps]
    by_stage = index("tracks_stage_open_idx", tracks.c.stage, postgresql_where=goes_on)
    yield "for the tracks at a step", by_stage, at_step
    yield "for the track of a row", index("tracks_id_key", tracks.c.id, unique=True), []
    key = (tasks.c[role] for role in schema.unique_key)
    yield "for the row of a track", index("audio_tasks_key", *key, unique=True), []
    is_open = tasks.c.status.in_(OPEN)
    of_task = [sa.select(tasks.c.id).where(tasks.c.task_type == s.task, is_open) for s in steps]
    columns = (tasks.c.task_type, tasks.c.status)
    by_task = index("audio_tasks_open_idx", *columns, postgresql_where=is_open)
    yield "for pending and failed rows", by_task, of_task


def _used(connection: sa.Connection, probe: sa.Select[Any], usable: dict[str, bool]) -> set[str]:
    """Those of the *usable* indexes ({name: is partial}) that the planner searches for *probe*."""
    nodes, used = [explain(connection, probe)], set()
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        name = node.get("Index Name")
        # Without a condition it is read from end to end: fine if it holds only what is wanted.
        if name in usable and ("Index Cond" in node or usable[name]):
            used.add(name)
    return used


def _dashboards(queue: Queue) -> Iterator[Finding]:
    for role, name in dict(queue.pipeline.dashboards).items():
        if role in queue.schema.dashboards:
            yield Finding("ok", f"dashboards: view {name}")
        else:
            yield Finding("note", f"dashboards: no view {name}: `audit --sources` says null for it")


def _triggers(queue: Queue) -> Iterator[Finding]:
    schema = queue.schema
    tracks, tasks = quoted(schema.tracks), quoted(schema.tasks)
    with queue.database.read() as moment:
        catalog = Catalog(moment.connection, schema)
        writing, inserting = catalog.writers(WRITES), catalog.writers(INSERTS)
        writers = [t for t in catalog.triggers if t.function in writing and (t.here or t.on_tasks)]
        updated_at = (schema.tracks.c.updated_at, schema.tasks.c.updated_at)
        kept = {
            f"{column.table.fullname}.{column.name}": catalog.sets(column) for column in updated_at
        }
    for trigger in writers:
        name, on = quoted(trigger.name), tracks if trigger.here else tasks
        says = f"trigger {name} on {on} writes to {tasks} (function {trigger.signature})"
        if trigger.enabled in "OA":
            yield Finding("ok", says)
        else:
            how = f"ALTER TABLE {on} ENABLE TRIGGER {name};"
            yield Finding("note", f"{says}, but it is disabled; to enable it: {how}")
    inserters = [t for t in writers if t.here and t.enabled in "OA" and t.function in inserting]
    if len({t.function for t in inserters}) > 1:  # one may serve INSERT and UPDATE by two
        names = ", ".join(quoted(t.name) for t in inserters)
        drop = f"DROP TRIGGER {quoted(inserters[-1].name)} ON {tracks};"
        yield Finding(
            "fix", f"triggers {names} all insert into {tasks}: keep one, such as by {drop}"
        )
    if not writers:
        yield Finding("ok", f"triggers: none writes to {tasks}, so only the application makes rows")
    for column, is_kept in kept.items():
        if is_kept:
            yield Finding("ok", f"triggers: one keeps {column}")
        else:
            yield Finding("note", f"triggers: none keeps {column}")


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
        lacking = ledger.lacking(moment.connection, queue.schema, "insert")
    if lacking:
        yield Finding(level, f"{where}: {_grants(role, lacking)}")
    else:
        yield Finding("ok", f"{where}: {role} has the privileges that actions need")


def _grants(role: str, lacking: Mapping[str, Iterable[str]]) -> str:
    to = quoted(role)
    statements = (f"GRANT {', '.join(p)} ON {on} TO {to};" for on, p in lacking.items())
    return f"{role} lacks some, to be had by {' '.join(statements)}"


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
