"""The trigger that keeps the backlog visible, in the database that actions write to."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.ddl import migration
from queue_insights.ddl.migration import Migration, MigrationError
from queue_insights.errors import InputError
from queue_insights.formats import visible
from queue_insights.pipeline import split_table
from queue_insights.queue import Queue
from queue_insights.schema import KIND, Schema, reflect_stages
from queue_insights.sql import Query, identifier, render, unescaped


@dataclass(frozen=True)
class Trigger:
    """The trigger for the tables of *schema*. *any_update*: it must look at updates that do not
    name the stage, too, because another trigger sets the stage in those."""

    schema: Schema
    any_update: bool = False

    @classmethod
    def needed(cls, connection: sa.Connection, queue: Queue) -> "Trigger":
        """The one that the tables need as they are now."""
        schema = reflect_stages(connection, queue.stages("trigger"))
        found = triggers(connection, schema)
        return cls(schema, any_update=any(each.on_tracks and each.sets_stage for each in found))

    @property
    def names(self) -> dict[str, Markup]:
        """What it consists of, and where it is."""
        return _names(self.schema.tracks.schema, self.schema.tracks.name, self.schema.tasks.name)

    @property
    def stages(self) -> list[str]:
        """Those at which a task is due."""
        return list(dict.fromkeys(step.stage for step in self.schema.pipeline.steps))

    @cached_property
    def sql(self) -> str:
        """The statements that make it."""
        given = self.names | {"any_update": self.any_update, "literal": _literal}
        for number in itertools.count():
            quote = Markup(f"$populate{number or ''}$")
            sql = migration.written(self.schema, "trigger_up.sql", **given, quote=quote)
            if sql.count(quote) == 2:  # else one of the names has it in it
                break
        return sql

    @property
    def migration(self) -> Migration:
        """All of it, with what a DBA should know, and the way back."""
        about = migration.written(self.schema, "trigger_about.sql", any_update=self.any_update)
        function = f"FUNCTION {unescaped(self.names['function'])}"
        comment = migration.comment(self.schema, function, self.sql)
        return Migration(about, f"{self.sql}\n\n{comment}", _down(self.names))


def _names(home: str, tracks: str, tasks: str) -> dict[str, Markup]:
    """The table of tracks, in the schema *home*, and what the trigger on it consists of: always
    called the same, so that no second pair of triggers can stand beside the first."""
    name = f"queue_insights_{tracks}_to_{tasks}"
    if len(name.encode()) > 56:  # Postgres cuts names at 63 bytes
        name = f"queue_insights_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return {
        "table": Markup(f"{identifier(home)}.{identifier(tracks)}"),
        "function": Markup(f"{identifier(home)}.{identifier(name)}()"),
        **{f"on_{event}": identifier(f"{name}_{event}") for event in ("insert", "update")},
    }


def _literal(value: str) -> Markup:
    """*value* as the first version wrote it, whose triggers are to stay good: without an E, so for
    standard_conforming_strings, which our migrations turn on."""
    return Markup("'" + value.replace("'", "''").replace(":", "\\:") + "'")


def _down(names: dict[str, Markup]) -> str:
    return unescaped(render(KIND, "trigger_down.sql", names))


def _catalogue(schema: Schema) -> dict[str, str]:
    """The parameters of the queries on the catalogue."""
    names = {"tracks": schema.tracks.table, "tasks": schema.tasks.table} | Trigger(schema).names
    return {key: unescaped(name) for key, name in names.items()}


def triggers(connection: sa.Connection, schema: Schema) -> Sequence[Any]:
    """The triggers on the tracks, whosever they are, as triggers.sql has them."""
    return Query(schema.render("triggers.sql"), _catalogue(schema)).rows(connection).all()


def generate(queue: Queue) -> Migration:
    """The trigger for the tables as they are, as a migration."""
    with queue.database.read(primary=True) as moment:
        return Trigger.needed(moment.connection, queue).migration


def token(queue: Queue) -> str:
    """What confirms an install: it names this very trigger in this database."""
    text = f"{queue.database.write_name}\n{generate(queue).up}"
    return f"trigger-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def install(queue: Queue, confirm: str | None = None) -> str:
    """Install the trigger, or bring it up to date; says in a line what was done.

    In one transaction it is proved, too. *confirm*, if given, has to be its ``token``. Raises
    MigrationError if the table stays in use, a privilege is missing, or stage changes would fail.
    """
    if confirm is not None and confirm != (right := token(queue)):
        wrong = f"{confirm!r} does not confirm this trigger in this database, {right!r} does"
        raise InputError(f"trigger install: nothing was done: {wrong}")

    def work(connection: sa.Connection) -> str:
        trigger = Trigger.needed(connection, queue)
        _, before = _probe(connection, trigger)
        migration.run(connection, trigger.migration.up)
        faults, error = _probe(connection, trigger)
        if faults or (error and not before):
            raise MigrationError(
                f"trigger install: nothing was changed: with it {(faults + error)[0]}; mend the "
                "table or the pipeline file, then install again"
            )
        proof = f"proved: a track got its rows at each of {len(trigger.stages)} stages, rolled back"
        on = f"{unescaped(trigger.names['table'])} ({migration.made_for(trigger.schema)})"
        return f"trigger installed on {on}; {f'not proved: {error[0]}' if error else proof}"

    return migration.apply(queue, "trigger install", work)


def uninstall(queue: Queue) -> str:
    """Drop what ``install`` made, and nothing else, whatever has become of the task table; says in
    a line what was done. Raises MigrationError as ``install``."""
    pipeline = queue.stages("trigger")
    home, tracks = split_table(pipeline.tracks.table)
    _, tasks = split_table(pipeline.tasks.table)

    def work(connection: sa.Connection) -> str:
        tables = Query(render(KIND, "tables.sql", {}), {"schemas": [home], "names": [tracks]})
        found = tables.rows(connection).first()
        names = _names(found.schema if found else home or "public", tracks, tasks)
        there = sa.func.to_regprocedure(unescaped(names["function"]))
        if connection.scalar(sa.select(there.is_(None))):
            return f"there is no trigger of queue-insights on {unescaped(names['table'])}"
        migration.run(connection, _down(names))
        return f"trigger removed from {unescaped(names['table'])}"

    return migration.apply(queue, "trigger uninstall", work, readers=True)


def verify(queue: Queue, prove: bool = False) -> list[str]:
    """What is amiss with the trigger, a line each, and what to do about it; empty if nothing is.

    With *prove*, a track is also taken through every stage, in a transaction that is rolled back:
    that locks the track for a moment, and advances sequences.
    """
    with queue.database.read(primary=True) as moment:
        trigger = Trigger.needed(moment.connection, queue)
        given = _catalogue(trigger.schema) | {
            **{"sql": trigger.sql, "label": migration.label(trigger.sql)},
            "columns": [] if trigger.any_update else [trigger.schema.tracks.roles["stage"]],
            "stages": sorted(trigger.stages),
        }
        found = Query(trigger.schema.render("trigger_verify.sql"), given).rows(moment.connection)
        findings = [visible(line, 2000) for line in found.scalars()]

    def work(connection: sa.Connection) -> list[str]:
        faults, error = _probe(connection, Trigger.needed(connection, queue))
        return [f"probe: {problem}" for problem in faults + error]

    return findings + (migration.apply(queue, "trigger verify", work) if prove else [])


def _probe(connection: sa.Connection, trigger: Trigger) -> tuple[list[str], list[str]]:
    """Move one track that nobody has locked through all stages at which a task is due, and back:
    what the trigger does wrong, and why else it could not be tried."""

    def ask(part: str, **values: Any) -> Sequence[Any]:
        query = Query(trigger.schema.render("probe.sql", part=part), values)
        return query.rows(connection).scalars().all()

    faults: list[str] = []
    savepoint = connection.begin_nested()
    try:
        if not (track := ask("pick")):
            return [], [f"there is no track in {trigger.schema.tracks} that could be tried"]
        ask("take", track=track[0])
        for stage in trigger.stages:
            ask("move", track=track[0], stage=stage)
            due = {step.task for step in trigger.schema.pipeline.steps if step.stage == stage}
            for task in sorted(due - set(ask("take", track=track[0]))):
                where = f"a track that reaches {visible(stage)!r}"
                faults.append(f"{where} gets no {visible(task)} row")
    except sa.exc.DBAPIError as error:
        cause = error.orig
        if not isinstance(cause, psycopg.Error) or cause.sqlstate in ("55P03", "40P01"):
            raise
        line = f"a change of stage fails: {cause.diag.message_primary or cause}"
        in_function = "queue_insights_" in (cause.diag.context or "")
        return ([*faults, line], []) if in_function else (faults, [line])
    finally:
        savepoint.rollback()
    return faults, []
