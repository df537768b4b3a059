"""What is in the way of the reads and the actions, and the statement or setting that mends it.
It writes nothing, and a role that may do no more than SELECT gets an answer to everything."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from queue_insights.actions.privileges import lacking
from queue_insights.database import READ_URL, WRITE_URL, Moment
from queue_insights.ddl.trigger import triggers
from queue_insights.errors import QueueInsightsError
from queue_insights.formats import duration
from queue_insights.job_schema import JobSchema
from queue_insights.pipeline import JobPipeline, load, shipped_pipelines
from queue_insights.queue import Queue
from queue_insights.schema import KIND, Schema, allowed_stages
from queue_insights.sql import Query, identifier, render, unescaped

OLDEST_SUPPORTED = 14  # major version of Postgres
CLOCK_SKEW = 2.0  # seconds, beyond which retry times set by workers mislead
REPLAY_LAG = 300.0  # seconds, beyond which a standby's figures do
RECORD = 8 * 86_400.0  # seconds of history, from which on a forecast has something to judge by
LONG_HISTORY = 1_000_000  # task rows, from which on indexes for the reads of history are worth it

Level = Literal["ok", "note", "fix"]


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis: ``ok``, ``note`` (nothing to mend) or ``fix`` (with what to do)."""

    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.level:<4} {self.text}"


Findings = Iterator[Finding]


def examine(queue: Queue) -> list[Finding]:
    """Examine connections, clock, tables, dashboards, privileges, indexes, history and triggers;
    what goes wrong while looking is a finding, too.

    >>> print(*examine(queue), sep="\\n")
    """
    findings: list[Finding] = []
    jobs = isinstance(queue.pipeline, JobPipeline)
    of_kind = (_jobs, _kept) if jobs else (_tables, _indexes, _history, _triggers)
    for check in (_reads, _clock, _known, *of_kind, _actions):
        name = check.__name__.removeprefix("_")
        try:
            with queue.database.read(primary=name == "actions") as moment:
                findings += check(queue, moment)
        except QueueInsightsError as error:
            findings.append(Finding("fix", f"{name}: {error}"))
            if name in ("reads", "tables", "jobs"):  # then the others have nothing to say
                break
    return findings


def _check(good: object, fine: str, otherwise: str, level: Level = "note") -> Finding:
    return Finding("ok", fine) if good else Finding(level, otherwise)


def _reads(queue: Queue, moment: Moment) -> Findings:
    version = str(_scalar(moment, "SHOW server_version")).split()[0]
    where = f"reads: {queue.database.name}, Postgres {version}"
    lag = moment.replay_lag_seconds
    if int(_scalar(moment, "SHOW server_version_num")) < OLDEST_SUPPORTED * 10_000:
        yield Finding("fix", f"{where} is too old: {OLDEST_SUPPORTED} is the oldest supported")
    elif not _scalar(moment, "SELECT pg_is_in_recovery()"):
        yield Finding("ok", where)
    elif lag is None:
        yield Finding("note", f"{where}, a standby that does not say how far it is behind")
    elif lag > REPLAY_LAG:
        behind = f"a standby {duration(lag)} behind"
        yield Finding("fix", f"{where}, {behind}: name the primary or another in {READ_URL}")
    else:
        yield Finding("note", f"{where}, a standby: figures are {lag:.1f} s old")


def _clock(queue: Queue, moment: Moment) -> Findings:
    before, server, after = now(), _scalar(moment, "SELECT clock_timestamp()"), now()
    asked = (after - before).total_seconds() / 2
    ahead = (server - before).total_seconds() - asked
    yield _check(
        abs(ahead) - asked <= CLOCK_SKEW,
        f"clock: this machine's and the server's agree within {CLOCK_SKEW:g} s",
        f"clock: the server is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this "
        "machine: set both by NTP (ages go by the server's clock, retry times by the workers')",
        "fix",
    )


def now() -> datetime:
    """This machine's clock (UTC)."""
    return datetime.now(UTC)


def _known(queue: Queue, moment: Moment) -> Findings:
    """Other queues that are shipped pipelines, by the tables that they read first."""
    names = {}
    for name in shipped_pipelines():
        pipeline = load(name)
        if isinstance(pipeline, JobPipeline) and name != queue.pipeline.name:
            names[name] = pipeline.jobs.relations[0].split()[0].rpartition(".")
    given = {"tables": [table for _, _, table in names.values()]}
    found = Query(render(KIND, "known.sql", {}), given).rows(moment.connection).all()
    for name, (home, _, table) in names.items():
        for row in found:
            if row.name != table or home not in ("", row.schema):
                continue
            command = f"queue-insights backlog --pipeline {name}"
            if not home and not row.visible:
                command = f"PGOPTIONS='-c search_path={row.schema}' {command}"
            yield Finding("note", f"queues: this database has {row.schema}.{table}: {command}")


def _jobs(queue: Queue, moment: Moment) -> Findings:
    schema = queue.schema
    assert isinstance(schema, JobSchema)
    kinds = [step.task for step in schema.steps(moment.connection, None)]
    of = f"{len(kinds)} kinds of job not completed" if len(kinds) != 1 else f"one kind: {kinds[0]}"
    yield Finding("ok", f"jobs: the pipeline {queue.pipeline.name} fits; {of}")
    if others := schema.jobs.unnamed:
        yield Finding("note", f"jobs: statuses that its file does not name: {', '.join(others)}")
    if "max_attempts" not in schema.jobs.roles:
        only = "exhausted are only those that the queue itself has given up"
        yield Finding("note", f"jobs: how often a job may be tried is not kept, so {only}")
    for what in ("failures", "durations", "retry"):
        if why := queue.pipeline.refusal(what):
            yield Finding("note", why)


def _kept(queue: Queue, moment: Moment) -> Findings:
    """How far back a queue of jobs remembers."""
    if why := queue.pipeline.refusal("eta"):
        yield Finding("note", why)
        return
    oldest = _scalar(moment, queue.schema.render("oldest.sql"))
    if oldest is None:
        yield Finding("note", "history: no completed job is kept by now")
        return
    age = (moment.as_of - oldest).total_seconds()
    yield _check(
        age > RECORD,
        f"history: completed jobs are kept for {duration(age)} or more",
        f"history: the oldest completed job ended {duration(age)} ago: without {duration(RECORD)} "
        "forecasts have no record of their own; a longer retention would give them one",
    )


def _tables(queue: Queue, moment: Moment) -> Findings:
    schema, pipeline = queue.schema, queue.stages("doctor")
    assert isinstance(schema, Schema)
    kind = {"a": "A (by track)", "b": "B (by subject)"}[schema.variant]
    both = f"{schema.tracks} and {schema.tasks}"
    yield Finding("ok", f"tables: {both}, variant {kind}, pipeline {queue.pipeline.name}")
    allowed = allowed_stages(schema.tracks)
    fine = f"stages: the table allows those of all {len(pipeline.steps)} steps"
    unseen = "so a misspelled one in the pipeline file goes unseen"
    column = f"{schema.tracks}.{schema.tracks.roles['stage']}"
    yield _check(allowed is not None, fine, f"stages: no CHECK on {column}, {unseen}")
    if others := [stage for stage in allowed or () if stage not in pipeline.stages]:
        yield Finding("note", f"stages that the pipeline file does not name: {', '.join(others)}")
    for view, name in dict(pipeline.dashboards).items():
        absent = f"dashboards: no view {name}: `audit --sources` says null for it"
        yield _check(view in schema.dashboards, f"dashboards: view {name}", absent)
    role = str(_scalar(moment, "SELECT current_user"))
    missing = lacking(moment.connection, schema, "read")
    fine = f"privileges: {role} may SELECT from both tables"
    yield _check(not missing, fine, f"privileges: {_grants(role, missing)}", "fix")
    for table in (schema.tracks, schema.tasks):
        if moment.connection.scalar(sa.select(sa.func.row_security_active(unescaped(table.table)))):
            to = unescaped(identifier(role))
            how = f"ALTER ROLE {to} BYPASSRLS; or use a role that owns the table"
            refused = f"would hide rows of {table} from {role}, so every read of it is refused"
            yield Finding("fix", f"row security: policies {refused}: {how}")
        if table.inherited:
            yield Finding("note", f"tables: rows of those that inherit from {table} are left out")
    if schema.tracks.column("updated_at").base != "timestamp with time zone":
        column = f"{schema.tracks}.{schema.tracks.roles['updated_at']}"
        yield Finding("note", f"tables: {column} has no time zone, so it is read as UTC")


def _indexes(queue: Queue, moment: Moment) -> Findings:
    assert isinstance(queue.schema, Schema)
    tracks, tasks = (unescaped(t.table) for t in (queue.schema.tracks, queue.schema.tasks))
    given = {"tracks": tracks, "tasks": tasks, "long": LONG_HISTORY}
    for found in Query(queue.schema.render("indexes.sql"), given).rows(moment.connection):
        yield Finding(found.level, found.text)


def _history(queue: Queue, moment: Moment) -> Findings:
    if lacking(moment.connection, queue.schema, "read"):
        return
    unseen = Query(queue.schema.render("unseen.sql")).rows(moment.connection).one()
    if unseen.ahead:
        yield Finding(
            "note", f"clock: {unseen.ahead:,} rows are from the future (a worker's clock)"
        )
    yield _check(
        not unseen.undated + unseen.moved_on,
        "history: every row of a track that has moved on says when",
        f"history: throughput, durations and flow leave out {unseen.undated:,} completed rows "
        f"without completed_at and {unseen.moved_on:,} running or skipped ones of tracks gone on",
    )


def _triggers(queue: Queue, moment: Moment) -> Findings:
    assert isinstance(queue.schema, Schema)
    found = triggers(moment.connection, queue.schema)
    tasks = unescaped(queue.schema.tasks.table)
    inserters = [trigger for trigger in found if trigger.inserts and trigger.on_tracks]
    if not inserters:
        yield Finding("ok", f"triggers: none writes to {tasks}, so only the application makes rows")
    for trigger in inserters:
        where = f"trigger {trigger.name} on {trigger.table_name}"
        says = f"{where} writes to {tasks} (function {trigger.function})"
        disabled = f"{says}, but it is disabled; to enable it: {trigger.enable}"
        yield _check(trigger.enabled in "OA", says, disabled)
    enabled = [trigger for trigger in inserters if trigger.enabled in "OA"]
    if len({trigger.function for trigger in enabled}) > 1:  # one may serve INSERT and UPDATE by two
        names = ", ".join(trigger.name for trigger in enabled)
        how = f"keep one, such as by {enabled[-1].drop}"
        yield Finding("fix", f"triggers {names} all insert into {tasks}: {how}")


def _actions(queue: Queue, moment: Moment) -> Findings:
    """The connection that actions use and what it may do. A reader lacks it on purpose, so it is
    only noted, unless QUEUE_INSIGHTS_WRITE_URL says that there is to be writing."""
    level: Level = "fix" if queue.database.separate_writes else "note"
    where = f"actions: {queue.database.write_name}"
    if _scalar(moment, "SELECT pg_is_in_recovery()"):
        yield Finding(level, f"{where} is a standby: name the primary in {WRITE_URL}")
        return
    role = str(_scalar(moment, "SELECT current_user"))
    if _scalar(moment, "SHOW default_transaction_read_only") == "on":
        to = unescaped(identifier(role))
        how = f"ALTER ROLE {to} SET default_transaction_read_only = off;"
        yield Finding(level, f"{where} is read-only for {role}: {how}")
    kind = "insert" if isinstance(queue.schema, Schema) else "vendor"
    missing = lacking(moment.connection, queue.schema, kind)
    fine = f"{where}: {role} has the privileges that actions need"
    yield _check(not missing, fine, f"{where}: {_grants(role, missing)}", level)


def _grants(role: str, missing: Mapping[str, Iterable[str]]) -> str:
    to = unescaped(identifier(role))
    statements = (f"GRANT {', '.join(p)} ON {on} TO {to};" for on, p in missing.items())
    return f"{role} lacks some, to be had by {' '.join(statements)}"


def _scalar(moment: Moment, statement: str) -> Any:
    return moment.connection.scalar(sa.text(statement))
