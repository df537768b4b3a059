"""The trigger that keeps the backlog visible: made from the pipeline, installed, verified, removed.

Everything here works on the database that actions write to.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.ddl.migration import (
    Migration,
    MigrationError,
    apply,
    comment,
    label,
    made_for,
    run,
    shown,
    written,
)
from queue_insights.errors import InputError
from queue_insights.formats import visible
from queue_insights.pipeline import split_table
from queue_insights.queue import Queue
from queue_insights.schema import KIND, Schema, Table, reflect
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
        schema = reflect(connection, queue.pipeline)
        return cls(schema, any_update=sets(triggers(connection, schema), schema.tracks, "stage"))

    @cached_property
    def names(self) -> dict[str, Markup]:
        """What it consists of, and where it is."""
        tracks = self.schema.tracks
        return _names(tracks.schema, tracks.name, self.schema.tasks.name)

    @property
    def stages(self) -> list[str]:
        """Those at which a task is due."""
        return list(dict.fromkeys(step.stage for step in self.schema.pipeline.steps))

    @cached_property
    def made(self) -> tuple[str, str]:
        """The statements that make it, and the function's source, which is in them."""
        given = self.names | {"any_update": self.any_update, "literal": _literal}
        quotes = (Markup(f"$populate{number or ''}$") for number in itertools.count())
        for quote in quotes:
            sql = written(self.schema, "trigger_up.sql", **given, quote=quote)
            if sql.count(quote) == 2:  # else one of the names has it in it
                return sql, sql.split(quote)[1]
        raise AssertionError

    @property
    def migration(self) -> Migration:
        """All of it, with what a DBA should know, and the way back."""
        tables = f"tracks: {self.schema.tracks.table}    tasks: {self.schema.tasks.table}"
        given = {"about_tables": shown(tables), "about_stage": shown(self.schema.tracks.stage)}
        about = written(self.schema, "trigger_about.sql", **given, any_update=self.any_update)
        sql, down = self.made[0], written(self.schema, "trigger_down.sql", **self.names)
        label = comment(self.schema, f"FUNCTION {unescaped(self.names['function'])}", sql)
        return Migration(about, f"{sql}\n\n{label}", down)


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


def _catalogue(schema: Schema) -> dict[str, str]:
    """The parameters of the queries on the catalogue."""
    tracks, tasks = schema.tracks, schema.tasks
    names = {"tracks": tracks.table, "tasks": tasks.table}
    return {key: unescaped(name) for key, name in (names | Trigger(schema).names).items()}


def triggers(connection: sa.Connection, schema: Schema) -> Sequence[Any]:
    """The triggers on the two tables, whosever they are, as triggers.sql has them."""
    return Query(schema.render("triggers.sql"), _catalogue(schema)).rows(connection).all()


def sets(found: Sequence[Any], table: Table, role: str) -> bool:
    """Whether one of the triggers *found* on *table* sets the column of that *role* by itself."""
    return any(t.table == str(table) and table.roles[role] in t.sets for t in found)


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

    One transaction, in which a track is taken through every stage (and back) to prove it. With
    *confirm*, only if that is its ``token``: InputError if not. Raises MigrationError if the table
    stays in use, naming by whom; if a privilege is missing; if stage changes would fail: nothing is
    changed then. InputError and DatabaseError as all reads.
    """
    if confirm is not None and confirm != (right := token(queue)):
        raise InputError(
            f"trigger install: nothing was done: {confirm!r} does not confirm this trigger in this "
            f"database, {right!r} does"
        )

    def work(connection: sa.Connection) -> str:
        trigger = Trigger.needed(connection, queue)
        _, before = _probe(connection, trigger)
        run(connection, trigger.migration.up)
        faults, error = _probe(connection, trigger)
        if faults or (error and not before):
            raise MigrationError(
                f"trigger install: nothing was changed: with it {(faults or error)[0]}; mend the "
                "table or the pipeline file, then install again"
            )
        proved = (
            f"proved: a track got its rows at each of {len(trigger.stages)} stages, rolled back"
        )
        if error:
            proved = f"not proved: {error[0]}"
        on = f"{unescaped(trigger.names['table'])} ({made_for(trigger.schema)})"
        return f"trigger installed on {on}; {proved}"

    return apply(queue, "trigger install", work)


def offer(queue: Queue, confirm: str) -> str:
    """For a notebook: ``install`` if *confirm* is not empty, else say what it has to be."""
    if confirm:
        return install(queue, confirm)
    return f"Nothing was installed. To install it, give the parameter confirm: {token(queue)}"


def uninstall(queue: Queue) -> str:
    """Drop what ``install`` made, and nothing else, whatever has become of the task table; says in
    a line what was done. Raises MigrationError as ``install``."""
    home, tracks = split_table(queue.pipeline.tracks.table)
    tasks = split_table(queue.pipeline.tasks.table)[1]

    def work(connection: sa.Connection) -> str:
        table = Query(render(KIND, "tables.sql", {}), {"schemas": [home], "names": [tracks]})
        found = table.rows(connection).first()
        names = _names(found.schema if found else home or "public", tracks, tasks)
        function = {"function": unescaped(names["function"])}
        there = Query("SELECT to_regprocedure(:function) IS NOT NULL", function)
        if found is None or not there.rows(connection).scalar():
            return f"there is no trigger of queue-insights on {unescaped(names['table'])}"
        run(connection, unescaped(render(KIND, "trigger_down.sql", names)))
        return f"trigger removed from {unescaped(names['table'])}"

    return apply(queue, "trigger uninstall", work, readers=True)


def verify(queue: Queue, prove: bool = False) -> list[str]:
    """What is amiss with the trigger, a line each, and what to do about it; empty if nothing is.

    Looked at: present, enabled, on the right table, as this pipeline and the table's variant need
    it, not changed since, its rights, triggers that do the same work beside it, and roles whose
    changes pass it by. With *prove*, a track is also taken through every stage, in a transaction
    that is rolled back: that locks the track for a moment, and advances sequences.
    """
    with queue.database.read(primary=True) as moment:
        trigger = Trigger.needed(moment.connection, queue)
        schema, (sql, source) = trigger.schema, trigger.made
        given = _catalogue(schema) | {
            **{"label": label(sql), "source": source, "stages": sorted(trigger.stages)},
            "columns": [] if trigger.any_update else [schema.tracks.roles["stage"]],
        }
        found = Query(schema.render("trigger_verify.sql"), given).rows(moment.connection)
        findings = [visible(line, 2000) for line in found.scalars()]
    if prove:

        def work(connection: sa.Connection) -> list[str]:
            faults, error = _probe(connection, Trigger.needed(connection, queue))
            return faults + error

        findings += [f"probe: {problem}" for problem in apply(queue, "trigger verify", work)]
    return findings


def _probe(connection: sa.Connection, trigger: Trigger) -> tuple[list[str], list[str]]:
    """Move one track through all stages at which a task is due, and see that it gets its rows.
    Returns what the trigger does wrong, and why else it could not be tried.

    In a savepoint that is rolled back: nothing stays changed but sequences. It takes a track that
    nobody has locked. Being locked out is for the caller to retry.
    """

    def ask(part: str, **values: Any) -> sa.CursorResult[Any]:
        return Query(trigger.schema.render(f"probe_{part}.sql"), values).rows(connection)

    faults: list[str] = []
    savepoint = connection.begin_nested()
    try:
        if (track := ask("pick").scalar()) is None:
            return [], [f"there is no track in {trigger.schema.tracks} that could be tried"]
        ask("clear", track=track)
        for stage in trigger.stages:
            ask("move", track=track, stage=stage)
            found = ask("rows", track=track).scalars().all()
            faults += [
                f"a track that reaches {visible(stage)!r} gets no {visible(step.task)} row"
                for step in trigger.schema.pipeline.steps
                if step.stage == stage and step.task not in found
            ]
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
