"""The pipeline's tables as they are in the database: columns, unique key, variant, dashboards."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa
from markupsafe import Markup

from queue_insights.errors import InputError
from queue_insights.job_schema import JobSchema, reflect_jobs
from queue_insights.pipeline import JobPipeline, Pipeline, Step, nearest, split_table
from queue_insights.reads import STATES
from queue_insights.sql import Query, escaped, identifier, render, text, unescaped

KIND = "stages"  # of queue: the folder of sql/ that holds its relations
Variant = Literal["a", "b"]

_SUBJECT_ROLES = ("subject_type", "subject_id")
# The roles of the columns that no two rows of the task table share.
_BY_SUBJECT, _BY_TRACK = (*_SUBJECT_ROLES, "task_type"), ("track_id", "task_type")
KEYS: dict[Variant, tuple[str, ...]] = {"b": _BY_SUBJECT, "a": _BY_TRACK}
_TIMES = ("last_attempt_at", "next_retry_at", "created_at", "updated_at", "completed_at")
# What the relations call their own columns; a task table's column of such a name gets another.
_LEADING = ("title", "stage", "task_type", "state", "arrived_at")
_INTERNAL = (*_LEADING, "position", "track_id", "previous_completed_at")
# CHECK (stage IN (...)), as Postgres prints it: the only stages that a track can have.
_LIST = re.compile(r"CHECK \(\(.* = ANY \(\(?ARRAY\[.*\](\)::text\[\])?\)\)\)", re.DOTALL)
# Types that do not compare with texts as texts do: literals are cast to them, columns are not, so
# that indexes serve. (A character without a length is not padded.)
_UNLIKE_TEXT = {"character": "bpchar", "citext": "citext"}
_NO_ZONE = {"timestamp without time zone": "", "date": "::timestamp"}
_ALIKE = [{"text", "character varying", "name"}, {"smallint", "integer", "bigint"}]
_LITERAL = re.compile(r"(E?)'((?:[^']|'')*)'")


def literals(expression: str) -> list[str]:
    """The texts that stand in an expression, as Postgres prints it."""
    return [
        (text.replace("\\\\", "\\") if escaped else text).replace("''", "'")
        for escaped, text in _LITERAL.findall(expression)
    ]


@dataclass(frozen=True)
class Column:
    """What a column holds: its ``type``, the ``exact`` one with its length, the ``base`` of a
    domain (else the type again), and the ``labels`` of an enum."""

    type: str
    exact: str
    base: str
    generated: bool = False
    labels: Sequence[str] | None = None

    @property
    def cast(self) -> Markup:
        """What makes a literal compare as this column does: nothing where text does."""
        unlike = _UNLIKE_TEXT.get(self.base.rpartition(".")[2])
        of = "bpchar" if unlike == "bpchar" else self.base if unlike or self.labels else ""
        return Markup(f"::{escaped(of)}") if of else Markup()


@dataclass(frozen=True, repr=False)
class Table:
    """A table in the database. ``roles`` says which column plays which role of the pipeline file;
    ``tasks.status`` in a template is that column's name, quoted. ``keys`` are the unique ones: of
    each its sorted columns, and the ``fault`` that makes it none; ``checks`` are pairs of a column
    and its CHECK; ``inherited``: other tables, which are not its partitions, inherit from it."""

    schema: str
    name: str
    columns: Mapping[str, Column]
    keys: Sequence[Mapping[str, Any]]
    checks: Sequence[Sequence[str]]
    inherited: bool
    roles: dict[str, str]

    def __getattr__(self, role: str) -> Markup:
        if role.startswith("__") or role not in self.roles:
            raise AttributeError(role)
        return identifier(self.roles[role])

    @property
    def table(self) -> Markup:
        """The name behind its schema's, as SQL writes it."""
        return Markup(f"{identifier(self.schema)}.{identifier(self.name)}")

    @property
    def rows(self) -> Markup:
        """The table's own rows, in a FROM, an UPDATE or a DELETE: not those of its heirs."""
        return Markup(f"ONLY {self.table}") if self.inherited else self.table

    def column(self, role: str) -> Column:
        """The column that plays this role."""
        return self.columns[self.roles[role]]

    def as_text(self, role: str) -> Markup:
        """The column's name, cast to text if it is an enum, which no text but its labels fits."""
        return identifier(self.roles[role]) + Markup("::text" if self.column(role).labels else "")

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
    def identity(self) -> str:
        """The table that tells this queue from another in the same database."""
        return unescaped(self.tasks.table)

    def steps(self, connection: sa.Connection, tasks: str | Iterable[str] | None) -> Sequence[Step]:
        """The steps of *tasks*, default all. Raises InputError for an unknown one."""
        return self.pipeline.select(tasks)

    def step(self, task: str) -> Step:
        """The step of one task."""
        (found,) = self.pipeline.select(task)
        return found

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
        plain = self.tracks.column("id").type in ("text", "character varying")
        updated = self.tracks.column("updated_at").base
        owner, track = self.tasks.column("owner"), self.tracks.column("id")
        alike = owner.base == track.base or any({owner.base, track.base} <= a for a in _ALIKE)

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
            **{"retryable": "failed", "failed": ("failed",), "limited": True},
            "is_failed": Markup("status = 'failed'"),
            "as_they_are": ("skipped",),
            # A row of the relations: its columns are called as their roles.
            "named": replace(self.tasks, roles={role: role for role in self.tasks.roles}),
            "subject": self.pipeline.tasks.subject,
            **{"states": STATES, "steps": numbered},
            "stages": list(dict.fromkeys(step.stage for step in wanted)),
            "previous": ["previous", *(f"previous_{i}" for i in range(2, most + 1))],
            "ahead": False,
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
            # How literals and names are written where a column is no text, or has no time zone.
            "as_stage": self.tracks.column("stage").cast,
            "as_task": self.tasks.column("task_type").cast,
            "as_owner": Markup("" if alike else f"::{escaped(owner.type)}"),
            "stage_text": self.tracks.as_text("stage"),
            "status_text": self.tasks.as_text("status"),
            "updated": self.tracks.updated_at
            + Markup(f"{_NO_ZONE[updated]} AT TIME ZONE 'UTC'" if updated in _NO_ZONE else ""),
            "row_columns": [_named(f"k.{name}", alias, name) for name, alias, _ in columns],
            "shown_columns": [_named(a, shown, a) for _, a, shown in columns if shown],
        }

    def render(self, name: str, steps: Iterable[Step] | None = None, **given: Any) -> str:
        """The template *name* for these tables, with what else it is *given*."""
        return render(KIND, name, self.context(steps) | given)


def _named(expression: str, alias: Markup, name: str) -> Markup:
    return Markup(expression if alias == name else f"{expression} AS {alias}")


AnySchema = Schema | JobSchema


def reflect(connection: sa.Connection, pipeline: Pipeline | JobPipeline) -> AnySchema:
    """The queue as it is in the database, of whichever kind.

    Raises InputError naming the pipeline's key, and what was found.
    """
    if isinstance(pipeline, JobPipeline):
        return reflect_jobs(connection, pipeline)
    return reflect_stages(connection, pipeline)


def reflect_stages(connection: sa.Connection, pipeline: Pipeline) -> Schema:
    """Read tables, unique key and dashboards from the database.

    Raises InputError naming the pipeline's key, what was found, and the nearest name that exists.
    """
    named = {"tracks": pipeline.tracks.table, "tasks": pipeline.tasks.table}
    named |= dict(pipeline.dashboards)
    found = _catalogue(connection, named)
    tracks = _table(connection, pipeline, "tracks", found)
    tasks = _table(connection, pipeline, "tasks", found)
    timed = [("tasks", tasks, role, ()) for role in _TIMES]
    for where, table, role, others in (*timed, ("tracks", tracks, "updated_at", _NO_ZONE)):
        kind = table.column(role).base
        if kind not in ("timestamp with time zone", *others):
            raise InputError(
                f"pipeline {pipeline.name!r}: {where}.{role}: column {table.roles[role]!r} of "
                f"{table} is {kind}, expected timestamp with time zone"
            )
    for what, table, allowed in (
        ("stage", tracks, allowed_stages(tracks)),
        ("task_type", tasks, tasks.column("task_type").labels),
    ):
        for value in [step.stage if what == "stage" else step.task for step in pipeline.steps]:
            if allowed is not None and value not in allowed:
                raise InputError(
                    f"pipeline {pipeline.name!r}: steps: the table {table} allows no {what} "
                    f"{value!r}, expected one of {', '.join(allowed)}{nearest(value, allowed)}"
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
    rows = [dict(row) for row in query.rows(connection).mappings()]
    return {keys[row.pop("number") - 1]: row for row in rows}


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
            f"{schema or inspector.default_schema_name or 'public'!r} that this user can see"
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
    columns = {name: Column(**facts) for name, facts in row["columns"].items()}
    return Table(**{**row, "columns": columns}, roles=roles)


def allowed_stages(tracks: Table) -> list[str] | None:
    """The stages that the table's CHECKs, and its type, leave to a track; None where any may be."""
    stage = tracks.roles["stage"]
    checks = [check for column, check in tracks.checks if column == stage]
    lists = [literals(check) for check in checks if _LIST.fullmatch(check)]
    if (labels := tracks.column("stage").labels) is not None:
        lists.append(list(labels))
    return [name for name in lists[0] if all(name in each for each in lists)] if lists else None


def _variant(pipeline: Pipeline, tasks: Table) -> Variant:
    keys: list[str] = []
    faults: list[str] = []
    for variant, roles in KEYS.items():
        columns = [getattr(pipeline.tasks, role) for role in roles]
        found = [key["fault"] for key in tasks.keys if key["columns"] == sorted(columns)]
        if None in found:
            return variant
        keys.insert(0, f"({', '.join(columns)})")
        faults += found
    wrong = f"{tasks} has no unique key on {' or '.join(keys)}, expected one of them"
    raise InputError(f"pipeline {pipeline.name!r}: tasks.table: {'; '.join([wrong, *faults])}")


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
