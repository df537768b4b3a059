"""What is in the database already: our trigger's objects, and what else is on the same table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from queue_insights.migration import name, qualified, table_name
from queue_insights.pipeline import Pipeline
from queue_insights.schema import Schema
from queue_insights.trigger_sql import Names, Trigger

ROW_INSERT, ROW_UPDATE = 5, 17  # pg_trigger.tgtype of AFTER triggers for each row
_BEFORE_ROW_UPDATE = 19

_FUNCTION = sa.text("""
    SELECT p.prosrc, p.prosecdef, p.proconfig, obj_description(p.oid, 'pg_proc') AS comment,
           EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                   WHERE a.grantee = 0) AS for_all,
           pg_get_userbyid(p.proowner) AS owner,
           has_table_privilege(p.proowner, to_regclass(:tasks), 'INSERT')
             AND has_table_privilege(p.proowner, to_regclass(:tasks), 'SELECT') AS may_insert
    FROM pg_proc p WHERE p.oid = to_regprocedure(:function)
""")
# Triggers on the tracks, and wherever else our function is used.
_TRIGGERS = sa.text("""
    SELECT t.tgname AS name, t.tgenabled AS enabled, t.tgtype AS type,
           t.tgrelid = to_regclass(:tracks) AS here,
           coalesce(t.tgfoid = to_regprocedure(:function), false) AS mine,
           format('%I.%I', n.nspname, c.relname) AS table_name,
           pg_get_triggerdef(t.oid) AS definition,
           ARRAY(SELECT attname::text FROM pg_attribute
                 WHERE attrelid = t.tgrelid AND attnum = ANY (t.tgattr)) AS columns,
           t.tgfoid AS function
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND t.tgparentid = 0
      AND (t.tgrelid = to_regclass(:tracks) OR t.tgfoid = to_regprocedure(:function))
    ORDER BY t.tgname
""")
_SOURCES = sa.text("""
    SELECT p.oid, p.proname AS name, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) AS text
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE l.lanname NOT IN ('c', 'internal')
      AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
""")
# Sessions in replica mode fire no ordinary trigger.
_REPLICA_MODE = sa.text("""
    SELECT coalesce('role ' || quote_ident(pg_get_userbyid(nullif(setrole, 0))),
                    'database ' || quote_ident(current_database()))
    FROM pg_db_role_setting
    WHERE 'session_replication_role=replica' = ANY (setconfig)
      AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
""")
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Catalog:
    """The function, the triggers and their sources, as one connection sees them."""

    connection: sa.Connection
    schema: Schema

    @classmethod
    def read(cls, connection: sa.Connection, pipeline: Pipeline) -> "Catalog":
        """That of *pipeline*'s tables. Raises InputError if they do not fit it."""
        return cls(connection, qualified(connection, pipeline))

    @cached_property
    def expected(self) -> Trigger:
        """The trigger that these tables need."""
        return Trigger(self.schema, any_update=self._sets_stage())

    @cached_property
    def _binds(self) -> dict[str, str]:
        tracks, tasks = self.schema.tracks, self.schema.tasks
        function = Names.of(tracks.schema, tracks.name, tasks.name).function
        return {
            "tracks": table_name(tracks),
            "tasks": table_name(tasks),
            "function": f"{name(tracks.schema, function)}()",
        }

    @cached_property
    def function(self) -> Any:
        """Our function, or None: prosrc, prosecdef, proconfig, comment, for_all (anyone may use
        it), owner, may_insert."""
        return self.connection.execute(_FUNCTION, self._binds).one_or_none()

    @cached_property
    def triggers(self) -> list[Any]:
        """All triggers on the tracks, and wherever else our function is used: name, enabled, type,
        here (on the tracks), mine (calls our function), table_name, definition, columns,
        function."""
        return list(self.connection.execute(_TRIGGERS, self._binds).all())

    @cached_property
    def _sources(self) -> Mapping[int, tuple[str, str]]:
        rows = self.connection.execute(_SOURCES).all()
        return {row.oid: (row.name, _COMMENTS.sub(" ", row.text)) for row in rows}

    def others(self) -> list[Any]:
        """The enabled triggers on the tracks, not ours, that insert into the task table."""
        ours = (self.expected.names.insert, self.expected.names.update)
        writers = _writers(self._sources, self.schema.tasks.name)
        return [
            t
            for t in self.triggers
            if t.here and t.enabled != "D" and not (t.mine and t.name in ours)
            if t.mine or t.function in writers
        ]

    def _sets_stage(self) -> bool:
        """Whether a BEFORE trigger assigns the stage in updates that may not name it."""
        stage = self.schema.tracks.c.stage.name
        sets = re.compile(
            rf"(?:;|\bBEGIN|\bTHEN|\bELSE|\bLOOP)\s*NEW\s*\.\s*\"?{re.escape(stage)}\"?\s*:?=",
            re.IGNORECASE,
        )
        return any(
            sets.search(self._sources.get(t.function, ("", ""))[1])
            for t in self.triggers
            if t.here and t.enabled != "D" and stage not in t.columns
            if t.type & _BEFORE_ROW_UPDATE == _BEFORE_ROW_UPDATE
        )

    def replica_mode(self) -> list[str]:
        """The roles and databases that are set to session_replication_role = replica."""
        return list(self.connection.scalars(_REPLICA_MODE).all())


def _writers(sources: Mapping[int, tuple[str, str]], table: str) -> set[int]:
    """The functions that insert into *table*, or call one that does."""
    into = r"\b(?:insert|merge)\s+into\s+(?:(?:\"[^\"]+\"|[\w$]+)\s*\.\s*)?"
    insert = rf"{into}\"?{re.escape(table)}(?![\w$])"
    wanted, found = [insert], set[int]()
    while wanted:
        pattern = re.compile("|".join(wanted), re.IGNORECASE)
        new = {oid for oid, (_, text) in sources.items() if pattern.search(text)} - found
        wanted = [rf"(?<![\w$]){re.escape(sources[oid][0])}\"?\s*\(" for oid in new]
        found |= new
    return found
