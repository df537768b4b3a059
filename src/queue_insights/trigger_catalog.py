"""What is in the database already: our trigger's objects, and what else is on the same tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from queue_insights.migration import qualified
from queue_insights.pipeline import Pipeline
from queue_insights.schema import Schema, quoted
from queue_insights.trigger_sql import Names, Trigger

ROW_INSERT, ROW_UPDATE = 5, 17  # pg_trigger.tgtype of AFTER triggers for each row
_BEFORE_ROW_UPDATE = 19
INSERTS = r"(?:insert|merge)\s+into"
WRITES = rf"(?:{INSERTS}|update|delete\s+from)"

_FUNCTION = sa.text("""
    SELECT p.prosrc, p.prosecdef, p.proconfig, obj_description(p.oid, 'pg_proc') AS comment,
           EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                   WHERE a.grantee = 0) AS for_all,
           pg_get_userbyid(p.proowner) AS owner,
           has_table_privilege(p.proowner, to_regclass(:tasks), 'INSERT')
             AND has_table_privilege(p.proowner, to_regclass(:tasks), 'SELECT') AS may_insert
    FROM pg_proc p WHERE p.oid = to_regprocedure(:function)
""")
# Triggers on the two tables, and wherever else our function is used.
_TRIGGERS = sa.text("""
    SELECT t.tgname AS name, t.tgenabled AS enabled, t.tgtype AS type,
           t.tgrelid = to_regclass(:tracks) AS here, t.tgrelid = to_regclass(:tasks) AS on_tasks,
           coalesce(t.tgfoid = to_regprocedure(:function), false) AS mine,
           format('%I.%I', n.nspname, c.relname) AS table_name,
           pg_get_triggerdef(t.oid) AS definition,
           ARRAY(SELECT attname::text FROM pg_attribute
                 WHERE attrelid = t.tgrelid AND attnum = ANY (t.tgattr)) AS columns,
           t.tgfoid AS function, t.tgfoid::regprocedure::text AS signature
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND t.tgparentid = 0
      AND (t.tgrelid IN (to_regclass(:tracks), to_regclass(:tasks))
           OR t.tgfoid = to_regprocedure(:function))
    ORDER BY here DESC, name
""")
_SOURCES = sa.text("""
    SELECT p.oid, p.proname AS name,
           coalesce(nullif(p.prosrc, ''), pg_get_functiondef(p.oid), '') AS text
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
        return Trigger(self.schema, any_update=self.sets(self.schema.tracks.c.stage))

    @cached_property
    def _binds(self) -> dict[str, str]:
        tracks, tasks = self.schema.tracks, self.schema.tasks
        names = Names.of(tracks.schema, tracks.name, tasks.name)
        return {"tracks": names.tracks, "tasks": quoted(tasks), "function": f"{names.function}()"}

    @cached_property
    def function(self) -> Any:
        """Our function, or None: prosrc, prosecdef, proconfig, comment, for_all (anyone may use
        it), owner, may_insert."""
        return self.connection.execute(_FUNCTION, self._binds).one_or_none()

    @cached_property
    def triggers(self) -> list[Any]:
        """All triggers on the two tables, and wherever else our function is used: name, enabled,
        type, here (on the tracks), on_tasks, mine (calls our function), table_name, definition,
        columns, function, signature (the function's)."""
        return list(self.connection.execute(_TRIGGERS, self._binds).all())

    @cached_property
    def _sources(self) -> Mapping[int, tuple[str, str]]:
        rows = self.connection.execute(_SOURCES).all()
        return {row.oid: (row.name, _COMMENTS.sub(" ", row.text)) for row in rows}

    def others(self) -> list[Any]:
        """The enabled triggers on the tracks, not ours, that insert into the task table."""
        names, writers = self.expected.names, self.writers(INSERTS)
        ours = (names.insert, names.update)
        return [
            t
            for t in self.triggers
            if t.here and t.enabled != "D" and not (t.mine and quoted(t.name) in ours)
            if t.mine or t.function in writers
        ]

    def sets(self, column: sa.Column[Any]) -> bool:
        """Whether a BEFORE trigger assigns the column, of one of the two tables, in updates that
        may not name it."""
        of_tracks = column.table is self.schema.tracks
        assigns = re.compile(
            rf"(?:;|\bBEGIN|\bTHEN|\bELSE|\bLOOP)\s*NEW\s*\.\s*\"?{re.escape(column.name)}\"?\s*:?=",
            re.IGNORECASE,
        )
        return any(
            assigns.search(self._sources.get(t.function, ("", ""))[1])
            for t in self.triggers
            if (t.here if of_tracks else t.on_tasks)
            if t.enabled != "D" and column.name not in t.columns
            if t.type & _BEFORE_ROW_UPDATE == _BEFORE_ROW_UPDATE
        )

    def writers(self, statements: str) -> set[int]:
        """The functions that write to the task table by one of the *statements* (INSERTS, WRITES),
        or call one that does."""
        table = (
            rf"(?:only\s+)?(?:(?:\"[^\"]+\"|[\w$]+)\s*\.\s*)?\"?{re.escape(self.schema.tasks.name)}"
        )
        wanted, found = [rf"\b{statements}\s+{table}(?![\w$])"], set[int]()
        while wanted:
            pattern = re.compile("|".join(wanted), re.IGNORECASE)
            new = {o for o, (_, text) in self._sources.items() if pattern.search(text)} - found
            wanted = [rf"(?<![\w$]){re.escape(self._sources[o][0])}\"?\s*\(" for o in new]
            found |= new
        return found

    def replica_mode(self) -> list[str]:
        """The roles and databases that are set to session_replication_role = replica."""
        return list(self.connection.scalars(_REPLICA_MODE).all())
