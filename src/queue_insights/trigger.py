"""The trigger that keeps the backlog visible: installed, verified, removed.

``trigger_sql`` generates it. Everything here works on the database that actions write to.
"""

import hashlib
import re
from collections.abc import Iterator

import sqlalchemy as sa

from queue_insights import migration as migrations
from queue_insights import trigger_sql
from queue_insights.errors import InputError
from queue_insights.formats import visible
from queue_insights.migration import Label, Migration, MigrationError, name, table_name
from queue_insights.queue import Queue
from queue_insights.trigger_catalog import ROW_INSERT, ROW_UPDATE, Catalog
from queue_insights.trigger_probe import Proof, probe

INSTALL = "run `queue-insights trigger install`"
SEARCH_PATH = ["search_path=pg_catalog, pg_temp"]
_LITERAL = re.compile(r"(E?)'((?:[^']|'')*)'")


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
        catalog = Catalog.read(connection, queue.pipeline)
        trigger, schema = catalog.expected, catalog.schema
        before = probe(connection, schema, trigger.names.function)
        migrations.run(connection, trigger.migration.up)
        proof = probe(connection, schema, trigger.names.function)
        if proof.missing or (proof.error and (proof.ours or not before.error)):
            raise MigrationError(
                f"trigger install: nothing was changed: with it {proof.problems[0]}; mend the "
                "table or the pipeline file, then install again"
            )
        what = f"pipeline {visible(queue.pipeline.name)}, variant {schema.variant.upper()}"
        return f"trigger installed on {table_name(schema.tracks)} ({what}); {_proved(proof)}"

    relations, tables = _relations(queue), [queue.pipeline.tasks.table]
    return migrations.apply(queue.database, "trigger install", relations, work, tables=tables)


def offer(queue: Queue, confirm: str) -> str:
    """For a notebook: ``install`` if *confirm* is not empty, else say what it has to be."""
    if confirm:
        return install(queue, confirm)
    return f"Nothing was installed. To install it, give the parameter confirm: {token(queue)}"


def _proved(proof: Proof) -> str:
    if proof.problems:
        return f"not proved: {proof.problems[0]}"
    return f"proved: a track got its rows at each of {proof.stages} stages, rolled back"


def uninstall(queue: Queue) -> str:
    """Drop what ``install`` made, and nothing else, whatever has become of the task table; says in
    a line what was done. Raises MigrationError as ``install``."""

    def work(connection: sa.Connection) -> str:
        names = trigger_sql.names(connection, queue.pipeline)
        function = name(names.schema, names.function)
        there = sa.text("SELECT to_regprocedure(:function)")
        if names.schema is None or not connection.scalar(there, {"function": f"{function}()"}):
            return f"there is no trigger of queue-insights on {name(names.schema, names.tracks)}"
        migrations.run(connection, names.down)
        return f"trigger removed from {name(names.schema, names.tracks)}"

    relations = _relations(queue)
    return migrations.apply(queue.database, "trigger uninstall", relations, work, readers=True)


def _relations(queue: Queue) -> list[str]:
    return [queue.pipeline.tracks.table]


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
        findings += migrations.apply(
            queue.database, "trigger verify", _relations(queue), lambda c: _prove(c, queue)
        )
    return findings


def _prove(connection: sa.Connection, queue: Queue) -> list[str]:
    trigger = Catalog.read(connection, queue.pipeline).expected
    return [
        f"probe: {p}" for p in probe(connection, trigger.schema, trigger.names.function).problems
    ]


def _findings(catalog: Catalog) -> Iterator[str]:
    tracks, tasks = table_name(catalog.schema.tracks), table_name(catalog.schema.tasks)
    if catalog.function is None:
        yield f"there is no trigger of queue-insights on {tracks}: {INSTALL}"
    else:
        yield from _about_function(catalog, tasks)
        yield from _about_triggers(catalog, tracks)
    for other in catalog.others():
        yield (
            f"trigger {visible(other.name)} on {tracks} inserts into {tasks} too: "
            f"DROP TRIGGER {name(other.name)} ON {tracks};"
        )
    for who in catalog.replica_mode():
        yield (
            f"{who} is set to session_replication_role = replica, in which no trigger fires: what "
            "it changes needs `queue-insights backfill`"
        )


def _about_function(catalog: Catalog, tasks: str) -> Iterator[str]:
    found, expected = catalog.function, catalog.expected
    function = f"{name(expected.names.schema, expected.names.function)}()"
    if reason := expected.label.differs(Label.read(found.comment)):
        yield f"function {function} {reason}: {INSTALL} again"
    elif (found.prosrc, found.prosecdef, found.proconfig) != (expected.source, True, SEARCH_PATH):
        yield f"function {function} was changed after it was installed: {INSTALL} again"
    if found.for_all:
        yield f"anybody may use {function}: REVOKE ALL ON FUNCTION {function} FROM PUBLIC;"
    if not found.may_insert:
        owner = name(found.owner)
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
                f"DROP TRIGGER {name(t.name)} ON {t.table_name};"
            )
    for trigger, kind, columns in (
        (expected.names.insert, ROW_INSERT, []),
        (expected.names.update, ROW_UPDATE, expected.columns),
    ):
        found = [t for t in catalog.triggers if t.here and t.mine and t.name == trigger]
        if not found:
            yield f"trigger {visible(trigger)} is missing on {tracks}: {INSTALL} again"
            continue
        if (found[0].type, found[0].columns) != (kind, columns) or not _fires_at(
            found[0].definition, expected.stages, changes=kind == ROW_UPDATE
        ):
            yield f"trigger {visible(trigger)} is not as it was installed: {INSTALL} again"
        if state := _STATES.get(found[0].enabled):
            enable = f"ALTER TABLE {tracks} ENABLE TRIGGER {name(trigger)};"
            yield f"trigger {visible(trigger)} {state}: {enable}"


_STATES = {
    "D": "is disabled",
    "R": "fires only for replicated changes",
    "A": "fires for replicated changes too, which bring their rows with them",
}


def _fires_at(definition: str, stages: list[str], changes: bool) -> bool:
    """Whether a trigger's WHEN, as Postgres prints it, is the one for these stages."""
    condition = definition.partition(" WHEN (")[2]
    found = [
        (text.replace("\\\\", "\\") if escaped else text).replace("''", "'")
        for escaped, text in _LITERAL.findall(condition)
    ]
    return sorted(found) == sorted(stages) and ("IS DISTINCT FROM" in condition) == changes
