"""The pipeline's tables as they are in the database: columns, unique key, variant, dashboards."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.errors import InputError
from queue_insights.pipeline import Pipeline, Step, nearest, split_table
from queue_insights.reads import STATES
from queue_insights.sql import Query, identifier, render, text

KIND = "stages"  # of queue: the folder of sql/ that holds its relations
Variant = Literal["a", "b"]

_SUBJECT_ROLES = ("subject_type", "subject_id")
_TIMES = ("last_attempt_at", "next_retry_at", "created_at", "updated_at", "completed_at")
# What the relations call their own columns; a task table's column of such a name gets another.
_LEADING = ("title", "stage", "task_type", "state", "arrived_at")
_INTERNAL = (*_LEADING, "position", "track_id", "previous_completed_at", "due_at", "stuck_after")
# CHECK (stage IN (...)), as Postgres prints it: the only stages that a track can have.
_LIST = re.compile(r"CHECK \(\(.* = ANY \(ARRAY\[.*\]\)\)\)", re.DOTALL)
_LITERAL = re.compile(r"(E?)'((?:[^']|'')*)'")


def literals(expression: str) -> list[str]:
    """The texts that stand in an expression, as Postgres prints it."""
    return [
        (text.replace("\\\\", "\\") if escaped else text).replace("''", "'")
        for escaped, text in _LITERAL.findall(expression)
    ]


@dataclass(frozen=True, repr=False)
class Table:
    """A table in the database. ``roles`` says which column plays which role of the pipeline file;
    ``tasks.status`` in a template is that column's name, quoted. ``keys`` are the unique ones,
    each a sorted list of columns; ``checks`` are pairs of a column and its CHECK; ``generated`` and
    ``enums`` are the columns that are so."""

    schema: str
    name: str
    kind: str
    columns: Mapping[str, str]
    keys: Sequence[Sequence[str]]
    checks: Sequence[tuple[str, str]]
    generated: frozenset[str]
    enums: frozenset[str]
    roles: dict[str, str]

    def __getattr__(self, role: str) -> Markup:
        if role.startswith("__") or role not in self.roles:
            raise AttributeError(role)
        return identifier(self.roles[role])

    @property
    def table(self) -> Markup:
        """The name behind its schema's, as SQL writes it."""
        return Markup(f"{identifier(self.schema)}.{identifier(self.name)}")

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, repr=False)
class Schema:
    """The pipeline's tables in one database, and what templates must know of them."""

    pipeline: Pipeline
    tracks: Table
    tasks: Table
    variant: Variant
    dashboards: Mapping[str, Table]

    @property
    def unique_key(self) -> tuple[str, ...]:
        """The roles of the columns that no two rows of the task table share."""
        return (*(("track_id",) if self.variant == "a" else _SUBJECT_ROLES), "task_type")

    def task_columns(self) -> Iterator[tuple[Markup, Markup, Markup | None]]:
        """The task table's columns, but for those that only repeat track and task. Of each: its
        name, what templates call it (its role, if it has one), and what a frame calls it (None
        where another role of the same column is shown)."""
        roles = dict(self.pipeline.tasks)
        repeated = {roles[role] for role in ("track_id", "task_type", *_SUBJECT_ROLES)}
        shown = {self.tracks.roles["id"], *_LEADING}
        for column in self.tasks.columns:
            aliases = [role for role, name in self.tasks.roles.items() if name == column]
            if column in repeated:
                continue
            free = column not in self.tasks.roles and column not in _INTERNAL
            label = identifier(f"task_{column}" if column in shown else column)
            for number, alias in enumerate(aliases or [column if free else f"column {column}"]):
                yield identifier(column), identifier(alias), None if number else label

    def context(self, steps: Iterable[Step] | None = None) -> dict[str, Any]:
        """What every template may use: the tables, their roles, and the *steps* (default all)."""
        every, stages = self.pipeline.steps, self.pipeline.stages
        wanted = list(every if steps is None else steps)
        leading = [self.pipeline.previous(step) for step in every]
        most = max(1, *map(len, leading))
        columns = list(self.task_columns())
        # An id is given as text: the index of another type does not serve, but no text is refused.
        plain = self.tracks.columns[self.tracks.roles["id"]].startswith(("text", "character var"))

        def earlier(stage: str) -> int:
            return sum(stages.index(step.stage) < stages.index(stage) for step in every)

        numbered = [
            {
                **{"position": position, "stage": step.stage, "task": step.task},
                "leading": [*tasks, *[None] * (most - len(tasks))],
                **{"stuck_after": step.stuck_after, "max_attempts": step.max_attempts},
            }
            for position, (step, tasks) in enumerate(zip(every, leading, strict=True), 1)
            if step in wanted
        ]
        return {
            **{"tracks": self.tracks, "tasks": self.tasks, "variant": self.variant},
            **{"subject": self.pipeline.tasks.subject, "states": STATES, "steps": numbered},
            "stages": list(dict.fromkeys(step.stage for step in wanted)),
            "previous": ["previous", *(f"previous_{i}" for i in range(2, most + 1))],
            "branching": len({step.stage for step in every}) < len(every),
            # How many steps a track at a stage has behind it.
            "behind": [
                Markup(f"WHEN {text(stage)} THEN {earlier(stage)}")
                for stage in stages
                if stage not in self.pipeline.terminal
            ],
            "behind_all": len(every),
            "id_column": self.tracks.id,
            "track_id_text": Markup("track_id" if plain else "track_id::text"),
            "row_columns": [_named(f"k.{name}", alias, name) for name, alias, _ in columns],
            "shown_columns": [_named(a, shown, a) for _, a, shown in columns if shown],
        }

    def render(self, name: str, steps: Iterable[Step] | None = None, **given: Any) -> str:
        """The template *name* for these tables, with what else it is *given*."""
        return render(KIND, name, self.context(steps) | given)


def _named(expression: str, alias: Markup, name: str) -> Markup:
    return Markup(expression if alias == name else f"{expression} AS {alias}")


def reflect(connection: sa.Connection, pipeline: Pipeline) -> Schema:
    """Read tables, unique key and dashboards from the database.

    Raises InputError naming the pipeline's key, what was found, and the nearest name that exists.
    """
    named = {"tracks": pipeline.tracks.table, "tasks": pipeline.tasks.table}
    named |= dict(pipeline.dashboards)
    found = _catalogue(connection, named)
    tracks = _table(connection, pipeline, "tracks", found)
    tasks = _table(connection, pipeline, "tasks", found)
    for role in _TIMES:
        column = tasks.roles[role]
        if (kind := tasks.columns[column]) != "timestamp with time zone":
            raise InputError(
                f"pipeline {pipeline.name!r}: tasks.{role}: column {column!r} of {tasks} is "
                f"{kind}, expected timestamp with time zone"
            )
    allowed = allowed_stages(tracks)
    for step in pipeline.steps:
        if allowed is not None and step.stage not in allowed:
            raise InputError(
                f"pipeline {pipeline.name!r}: steps: the table {tracks} allows no stage "
                f"{step.stage!r}, expected one of {', '.join(allowed)}"
                f"{nearest(step.stage, allowed)}"
            )
    variant = _variant(pipeline, tasks)
    owner = tasks.roles["track_id" if variant == "a" else "subject_id"]
    tasks = replace(tasks, roles=tasks.roles | {"owner": owner})
    return Schema(pipeline, tracks, tasks, variant, _dashboards(pipeline, found))


def _catalogue(connection: sa.Connection, named: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What ``tables.sql`` says of each table that there is, by its key in *named*."""
    schemas, names = zip(*map(split_table, named.values()), strict=True)
    query = Query(render(KIND, "tables.sql", {}), {"schemas": list(schemas), "names": list(names)})
    keys = list(named)
    return {keys[row["number"] - 1]: dict(row) for row in query.rows(connection).mappings()}


def _table(
    connection: sa.Connection,
    pipeline: Pipeline,
    where: Literal["tracks", "tasks"],
    found: Mapping[str, dict[str, Any]],
) -> Table:
    roles: dict[str, str] = dict(getattr(pipeline, where))
    schema, name = split_table(roles.pop("table"))
    roles.pop("subject", None)
    if where not in found:
        inspector = sa.inspect(connection)
        tables = inspector.get_table_names(schema) + inspector.get_view_names(schema)
        raise InputError(
            f"pipeline {pipeline.name!r}: {where}.table: no table {name!r} in schema "
            f"{schema or inspector.default_schema_name!r} that this user can see"
            f"{nearest(name, tables)}; check the file, the database name and search_path"
        )
    columns = found[where]["columns"]
    for role, column in roles.items():
        if column not in columns and role not in _SUBJECT_ROLES:
            raise InputError(
                f"pipeline {pipeline.name!r}: {where}.{role}: table {name!r} has no column "
                f"{column!r}{nearest(column, columns)}; it has {', '.join(columns)}"
            )
    return _as_table(found[where], {r: c for r, c in roles.items() if c in columns})


def _as_table(row: Mapping[str, Any], roles: dict[str, str]) -> Table:
    checks = [(column, check) for column, check in row["checks"] or []]
    traits = [frozenset(row[name] or ()) for name in ("generated", "enums")]
    facts = (row["schema"], row["name"], row["kind"], row["columns"], row["keys"] or [])
    return Table(*facts, checks, traits[0], traits[1], roles)


def allowed_stages(tracks: Table) -> list[str] | None:
    """The stages that the table's CHECKs leave to a track; None where there is no such CHECK."""
    stage = tracks.roles["stage"]
    checks = [check for column, check in tracks.checks if column == stage]
    lists = [literals(check) for check in checks if _LIST.fullmatch(check)]
    return [name for name in lists[0] if all(name in each for each in lists)] if lists else None


def _variant(pipeline: Pipeline, tasks: Table) -> Variant:
    roles = pipeline.tasks
    if sorted((roles.subject_type, roles.subject_id, roles.task_type)) in tasks.keys:
        return "b"
    if sorted((roles.track_id, roles.task_type)) in tasks.keys:
        return "a"
    raise InputError(
        f"pipeline {pipeline.name!r}: tasks.table: {tasks} has no unique key on "
        f"({roles.track_id}, {roles.task_type}) or "
        f"({roles.subject_type}, {roles.subject_id}, {roles.task_type}), expected one of them"
    )


def _dashboards(pipeline: Pipeline, found: Mapping[str, dict[str, Any]]) -> dict[str, Table]:
    """The views of the application that are there and have the columns that an audit reads."""
    needed = {
        "task_summary": {"task_type", "status", "count"},
        "audio_progress": {pipeline.tracks.id, "pending"},
    }
    return {
        role: _as_table(found[role], {})
        for role, columns in needed.items()
        if role in found and columns <= set(found[role]["columns"])
    }
