"""The trigger that keeps the backlog visible: installed, verified, removed.

``trigger_sql`` generates it. Everything here works on the database that actions write to.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg
import sqlalchemy as sa

from queue_insights import migration as migrations
from queue_insights.errors import InputError
from queue_insights.formats import visible
from queue_insights.migration import Label, Migration, MigrationError
from queue_insights.pipeline import split_table
from queue_insights.queue import Queue
from queue_insights.schema import literals, quoted
from queue_insights.trigger_catalog import ROW_INSERT, ROW_UPDATE, Catalog
from queue_insights.trigger_sql import Names, Trigger

INSTALL = "run `queue-insights trigger install`"
SEARCH_PATH = ["search_path=pg_catalog, pg_temp"]


def generate(queue: Queue) -> Migration:
    """The trigger for the tables as they are, as a migration."""
    with queue.database.read(primary=True) as moment:
        return Catalog.read(moment.connection, queue.pipeline).expected.migration


def token(queue: Queue) -> str:
    """What confirms an install: it names this very trigger in this database."""
    text = f"{queue.database.write_name}\n{generate(queue).up}"
    return f"trigger-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def install(queue: Queue, confirm: str | None = None) -> str:
    """Install the trigger, or bring it up to date; says in a line what was done.

    One transaction, in which a track is taken through every stage (and back) to prove it. With
    *confirm*, only if that is its ``token``: InputError if not. Raises MigrationError if the table
    stays in use, naming by whom; if a privilege is missing; if stage changes would fail: nothing is
    changed then. InputError and DatabaseError as all reads.
    """
    if confirm is not None and confirm != (expected := token(queue)):
        raise InputError(
            f"trigger install: nothing was done: {confirm!r} does not confirm this trigger in this "
            f"database, {expected!r} does"
        )

    def work(connection: sa.Connection) -> str:
        trigger = Catalog.read(connection, queue.pipeline).expected
        before = _probe(connection, trigger)
        migrations.run(connection, trigger.migration.up)
        proof = _probe(connection, trigger)
        if proof.missing or (proof.error and (proof.ours or not before.error)):
            raise MigrationError(
                f"trigger install: nothing was changed: with it {proof.problems[0]}; mend the "
                "table or the pipeline file, then install again"
            )
        proved = (
            f"proved: a track got its rows at each of {len(trigger.stages)} stages, rolled back"
        )
        if proof.problems:
            proved = f"not proved: {proof.problems[0]}"
        what = f"pipeline {visible(queue.pipeline.name)}, variant {trigger.schema.variant.upper()}"
        return f"trigger installed on {trigger.names.tracks} ({what}); {proved}"

    relations, tables = [queue.pipeline.tracks.table], [queue.pipeline.tasks.table]
    return migrations.apply(queue.database, "trigger install", relations, work, tables=tables)


def offer(queue: Queue, confirm: str) -> str:
    """For a notebook: ``install`` if *confirm* is not empty, else say what it has to be."""
    if confirm:
        return install(queue, confirm)
    return f"Nothing was installed. To install it, give the parameter confirm: {token(queue)}"


def uninstall(queue: Queue) -> str:
    """Drop what ``install`` made, and nothing else, whatever has become of the task table; says in
    a line what was done. Raises MigrationError as ``install``."""

    def work(connection: sa.Connection) -> str:
        schema, tracks = split_table(queue.pipeline.tracks.table)
        table = sa.Table(tracks, sa.MetaData(), schema=schema)
        home = connection.scalar(migrations.SCHEMA_OF, {"name": quoted(table)})
        names = Names.of(home, tracks, split_table(queue.pipeline.tasks.table)[1])
        there = sa.text("SELECT to_regprocedure(:function)")
        if home is None or not connection.scalar(there, {"function": f"{names.function}()"}):
            return f"there is no trigger of queue-insights on {names.tracks}"
        migrations.run(connection, names.down)
        return f"trigger removed from {names.tracks}"

    relations = [queue.pipeline.tracks.table]
    return migrations.apply(queue.database, "trigger uninstall", relations, work, readers=True)


def verify(queue: Queue, prove: bool = False) -> list[str]:
    """What is amiss with the trigger, a line each, and what to do about it; empty if nothing is.

    Looked at: present, enabled, on the right table, as this pipeline and the table's variant need
    it, not changed since, its rights, triggers that do the same work beside it, and roles whose
    changes pass it by. With *prove*, a track is also taken through every stage, in a transaction
    that is rolled back: that locks the track for a moment, and advances sequences.
    """
    with queue.database.read(primary=True) as moment:
        findings = list(_findings(Catalog.read(moment.connection, queue.pipeline)))
    if prove:

        def work(connection: sa.Connection) -> list[str]:
            return _probe(connection, Catalog.read(connection, queue.pipeline).expected).problems

        relations = [queue.pipeline.tracks.table]
        problems = migrations.apply(queue.database, "trigger verify", relations, work)
        findings += [f"probe: {problem}" for problem in problems]
    return findings


def _findings(catalog: Catalog) -> Iterator[str]:
    tracks, tasks = catalog.expected.names.tracks, quoted(catalog.schema.tasks)
    if catalog.function is None:
        yield f"there is no trigger of queue-insights on {tracks}: {INSTALL}"
    else:
        yield from _about_function(catalog, tasks)
        yield from _about_triggers(catalog, tracks)
    for other in catalog.others():
        yield (
            f"trigger {visible(other.name)} on {tracks} inserts into {tasks} too: "
            f"DROP TRIGGER {quoted(other.name)} ON {tracks};"
        )
    for who in catalog.replica_mode():
        yield (
            f"{who} is set to session_replication_role = replica, in which no trigger fires: what "
            "it changes needs `queue-insights backfill`"
        )


def _about_function(catalog: Catalog, tasks: str) -> Iterator[str]:
    found, expected = catalog.function, catalog.expected
    function = f"{expected.names.function}()"
    if reason := expected.label.differs(Label.read(found.comment)):
        yield f"function {function} {reason}: {INSTALL} again"
    elif (found.prosrc, found.prosecdef, found.proconfig) != (expected.source, True, SEARCH_PATH):
        yield f"function {function} was changed after it was installed: {INSTALL} again"
    if found.for_all:
        yield f"anybody may use {function}: REVOKE ALL ON FUNCTION {function} FROM PUBLIC;"
    if not found.may_insert:
        owner = quoted(found.owner)
        yield (
            f"{owner}, who owns {function}, lacks rights on {tasks}: "
            f"GRANT SELECT, INSERT ON {tasks} TO {owner};"
        )


def _about_triggers(catalog: Catalog, tracks: str) -> Iterator[str]:
    expected = catalog.expected
    for t in catalog.triggers:
        if t.mine and not t.here:
            yield (
                f"trigger {visible(t.name)} is on {t.table_name}, not on {tracks}: "
                f"DROP TRIGGER {quoted(t.name)} ON {t.table_name};"
            )
    for trigger, kind, columns in (
        (expected.names.insert, ROW_INSERT, []),
        (expected.names.update, ROW_UPDATE, expected.columns),
    ):
        found = [t for t in catalog.triggers if t.here and t.mine and quoted(t.name) == trigger]
        if not found:
            yield f"trigger {visible(trigger)} is missing on {tracks}: {INSTALL} again"
            continue
        if (found[0].type, found[0].columns) != (kind, columns) or not _fires_at(
            found[0].definition, expected.stages, changes=kind == ROW_UPDATE
        ):
            yield f"trigger {visible(trigger)} is not as it was installed: {INSTALL} again"
        if state := _STATES.get(found[0].enabled):
            enable = f"ALTER TABLE {tracks} ENABLE TRIGGER {trigger};"
            yield f"trigger {visible(trigger)} {state}: {enable}"


_STATES = {
    "D": "is disabled",
    "R": "fires only for replicated changes",
    "A": "fires for replicated changes too, which bring their rows with them",
}


def _fires_at(definition: str, stages: list[str], changes: bool) -> bool:
    """Whether a trigger's WHEN, as Postgres prints it, is the one for these stages."""
    condition = definition.partition(" WHEN (")[2]
    found = literals(condition)
    return sorted(found) == sorted(stages) and ("IS DISTINCT FROM" in condition) == changes


@dataclass
class _Proof:
    """What a probe found. ``missing``: what a track did not get at a stage; ``error``: why it could
    not be moved on; ``ours``: in the trigger's function."""

    missing: list[str] = field(default_factory=list)
    error: str = ""
    ours: bool = False

    @property
    def problems(self) -> list[str]:
        return [*self.missing, *([self.error] if self.error else [])]


def _probe(connection: sa.Connection, trigger: Trigger) -> _Proof:
    """Move one track through all stages at which a task is due, and see that it gets its rows.

    In a savepoint that is rolled back: nothing stays changed but sequences. It takes a track that
    nobody has locked. Being locked out is for the caller to retry.
    """
    proof = _Proof()
    savepoint = connection.begin_nested()
    try:
        _walk(connection, trigger, proof)
    except sa.exc.DBAPIError as error:
        cause = error.orig
        if not isinstance(cause, psycopg.Error) or cause.sqlstate in ("55P03", "40P01"):
            raise
        proof.error = f"a change of stage fails: {cause.diag.message_primary or cause}"
        proof.ours = trigger.names.plain in (cause.diag.context or "")
    finally:
        savepoint.rollback()
    return proof


def _walk(connection: sa.Connection, trigger: Trigger, proof: _Proof) -> None:
    schema = trigger.schema
    tracks, tasks, due = schema.tracks, schema.tasks, schema.pipeline.tasks_due
    # From elsewhere to the first stage, so that each update is a change.
    other = tracks.c.stage.is_distinct_from(trigger.stages[0])
    track = connection.scalar(
        sa.select(tracks.c.id).where(other).limit(1).with_for_update(skip_locked=True)
    )
    if track is None:
        proof.error = f"there is no track in {tracks.fullname} that could be tried"
        return
    rows = sa.and_(schema.of_track(tasks, tracks), tracks.c.id == track, tasks.c.task_type.in_(due))
    connection.execute(sa.delete(tasks).where(sa.exists().select_from(tracks).where(rows)))
    got = sa.select(tasks.c.task_type).select_from(tracks.join(tasks, rows))
    for stage in trigger.stages:
        moved = sa.update(tracks).where(tracks.c.id == track).values({tracks.c.stage: stage})
        connection.execute(moved)
        found = connection.scalars(got.where(tasks.c.status == "pending")).all()
        proof.missing += [
            f"a track that reaches {visible(stage)!r} gets no {visible(step.task)} row"
            for step in schema.pipeline.steps
            if step.stage == stage and step.task not in found
        ]
