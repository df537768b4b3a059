"""Which indexes the reads would like, and whether the planner can use one that is there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from queue_insights.queries import compile_sql, explain
from queue_insights.schema import Schema, quoted
from queue_insights.states import OPEN

Level = Literal["ok", "note", "fix"]

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
class _Wanted:
    """An index, what for, and queries for which the planner should use it or a better one (none
    for a unique key: that serves whatever names all of its columns)."""

    purpose: str
    index: sa.Index
    probes: Sequence[sa.Select[Any]]

    @property
    def table(self) -> sa.Table:
        table = self.index.table
        assert table is not None
        return table

    @property
    def columns(self) -> list[str]:
        return [column.name for column in self.index.columns]

    @property
    def ddl(self) -> str:
        return compile_sql(sa.schema.CreateIndex(self.index)) + ";"


def index_findings(connection: sa.Connection, schema: Schema) -> Iterator[tuple[Level, str]]:
    """For each index that the reads would like: ``ok``, or ``fix`` and the statement that makes it.

    The planner is asked, with sequential scans off, so partial indexes count where they apply; an
    index counts if it leads with the wanted column, and not while it is invalid.
    """
    connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
    for wanted in _wanted(schema):
        table = quoted(wanted.table)
        what = f"{table} ({', '.join(wanted.columns)}) {wanted.purpose}"
        if not connection.scalar(_IS_TABLE, {"table": table}):
            yield "note", f"indexes: {what}: not examined, for {table} is no plain table"
            continue
        found = connection.execute(_INDEXES, {"table": table}).all()
        leading = [i for i in found if i.columns[:1] == wanted.columns[:1]]
        if wanted.index.unique:
            leading = [i for i in found if i.is_key and set(i.columns) == set(wanted.columns)]
        usable = {index.name: index.partial for index in leading if index.valid}
        used = [_used(connection, probe, usable) for probe in wanted.probes] or [set(usable)]
        broken = [index.quoted for index in leading if not index.valid]
        if all(used):
            yield "ok", f"indexes: {what}: {', '.join(sorted(set().union(*used)))}"
        elif broken:
            how = f"REINDEX INDEX CONCURRENTLY {broken[0]};"
            yield "fix", f"indexes: {what}: {broken[0]} is not valid: {how}"
        else:
            yield "fix", f"indexes: none on {what}: {wanted.ddl}"


def _wanted(schema: Schema) -> Iterator[_Wanted]:
    # Copies: an Index joins the Table that it is made for, and the schema's are not ours.
    tracks, tasks = (t.to_metadata(sa.MetaData()) for t in (schema.tracks, schema.tasks))
    steps, terminal = schema.pipeline.steps, schema.pipeline.terminal

    def index(name: str, *on: sa.Column[Any], unique: bool = False, where: Any = None) -> sa.Index:
        return sa.Index(
            name, *on, unique=unique, postgresql_where=where, postgresql_concurrently=True
        )

    yield _Wanted(
        "for the tracks at a step",
        index(
            "tracks_stage_open_idx",
            tracks.c.stage,
            where=tracks.c.stage.not_in(terminal) if terminal else None,
        ),
        [sa.select(tracks.c.title).where(tracks.c.stage == step.stage) for step in steps],
    )
    yield _Wanted(
        "for the track of a row",
        index("tracks_id_key", tracks.c.id, unique=True),
        [],
    )
    yield _Wanted(
        "for the row of a track",
        index("audio_tasks_key", *(tasks.c[role] for role in schema.unique_key), unique=True),
        [],
    )
    is_open = tasks.c.status.in_(OPEN)
    yield _Wanted(
        "for pending and failed rows",
        index("audio_tasks_open_idx", tasks.c.task_type, tasks.c.status, where=is_open),
        [sa.select(tasks.c.id).where(tasks.c.task_type == s.task, is_open) for s in steps],
    )


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
