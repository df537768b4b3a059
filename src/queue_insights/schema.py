"""The pipeline's tables as they are in the database at hand: columns, variant, dashboards."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from queue_insights.errors import InputError
from queue_insights.pipeline import Pipeline, nearest, split_table

Variant = Literal["a", "b"]

_SUBJECT_ROLES = ("subject_type", "subject_id")
_TIMES = ("last_attempt_at", "next_retry_at", "created_at", "updated_at", "completed_at")
# CHECK (stage IN (...)) of one column, as Postgres prints it: the only stages a track can have.
_STAGE_CHECKS = sa.text("""
    SELECT pg_get_constraintdef(c.oid)
    FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
    WHERE c.conrelid = to_regclass(:table) AND c.contype = 'c' AND c.convalidated
      AND cardinality(c.conkey) = 1 AND a.attname = :column
      AND pg_get_constraintdef(c.oid) ~ '^CHECK \\(\\(.* = ANY \\(ARRAY\\[.*\\]\\)\\)\\)$'
""")
_LITERAL = re.compile(r"(E?)'((?:[^']|'')*)'")


# Of the connection's own dialect, quoted names have each % twice: fit for its statements only.
_NAMES = postgresql.dialect(paramstyle="named").identifier_preparer  # type: ignore[no-untyped-call]


def quoted(name: sa.Table | str) -> str:
    """A table or another name as SQL writes it, in quotes where it needs them."""
    text = _NAMES.quote(name) if isinstance(name, str) else _NAMES.format_table(name)
    return str(text)


def literals(sql: str) -> list[str]:
    """The texts that stand in an expression, as Postgres prints it."""
    return [
        (text.replace("\\\\", "\\") if escaped else text).replace("''", "'")
        for escaped, text in _LITERAL.findall(sql)
    ]


@dataclass(frozen=True, eq=False)
class Schema:
    """The pipeline's tables in one database. A column's ``key`` is its role in the pipeline file
    (``tasks.c.track_id``), its ``name`` what the database calls it."""

    pipeline: Pipeline
    tracks: sa.Table
    tasks: sa.Table
    variant: Variant
    dashboards: dict[str, sa.Table]

    def ours(self, tasks: sa.FromClause) -> sa.ColumnElement[bool]:
        """True for the rows of *tasks* (the table or an alias of it) that are about tracks."""
        if self.variant == "a":
            return sa.true()
        return tasks.c.subject_type == self.pipeline.tasks.subject

    def of_steps(self, tasks: sa.FromClause) -> sa.ColumnElement[bool]:
        """True for those of ``ours`` that are of one of the pipeline's steps."""
        return sa.and_(self.ours(tasks), tasks.c.task_type.in_(self.pipeline.tasks_due))

    def owner(self, tasks: sa.FromClause) -> sa.ColumnElement[str]:
        """The id of the track that a row of *tasks* is about, as the unique key has it."""
        column: sa.ColumnElement[str] = tasks.c[self.unique_key[-2]]
        return column

    def of_track(self, tasks: sa.FromClause, tracks: sa.FromClause) -> sa.ColumnElement[bool]:
        """True where a row of *tasks* belongs to the track: written so the unique key serves it."""
        return sa.and_(self.ours(tasks), self.owner(tasks) == tracks.c.id)

    @property
    def unique_key(self) -> tuple[str, ...]:
        """Keys of the columns that no two rows of the task table share."""
        owner = ("track_id",) if self.variant == "a" else _SUBJECT_ROLES
        return (*owner, "task_type")

    def naming(self, track: sa.ColumnElement[str], task: str) -> dict[str, Any]:
        """The values of a new row, by key, that say which track and task it is about."""
        values = {"track_id": track, "task_type": sa.literal(task)}
        if self.variant == "b":
            values |= {"subject_type": sa.literal(self.pipeline.tasks.subject), "subject_id": track}
        return values

    @property
    def row_keys(self) -> list[str]:
        """Keys of the task table's columns, but for those that only repeat track and task."""
        repeated = {"track_id", "task_type", *_SUBJECT_ROLES}
        return [key for key in self.tasks.c.keys() if key not in repeated]  # noqa: SIM118


def reflect(connection: sa.Connection, pipeline: Pipeline) -> Schema:
    """Read tables, unique key and dashboards from the database.

    Raises InputError naming the pipeline's key, what was found, and the nearest name that exists.
    """
    inspector = sa.inspect(connection)
    tracks = _table(inspector, pipeline, "tracks")
    tasks = _table(inspector, pipeline, "tasks")
    for role in _TIMES:
        column = tasks.c[role]
        if not getattr(column.type, "timezone", False):
            raise InputError(
                f"pipeline {pipeline.name!r}: tasks.{role}: column {column.name!r} of "
                f"{tasks.fullname} is {column.type}, expected timestamp with time zone"
            )
    allowed = allowed_stages(connection, tracks)
    for step in pipeline.steps:
        if allowed is not None and step.stage not in allowed:
            raise InputError(
                f"pipeline {pipeline.name!r}: steps: the table {tracks.fullname} allows no "
                f"stage {step.stage!r}, expected one of {', '.join(allowed)}"
                f"{nearest(step.stage, allowed)}"
            )
    variant = _variant(inspector, pipeline, tasks)
    return Schema(pipeline, tracks, tasks, variant, _dashboards(inspector, pipeline))


def _table(
    inspector: sa.Inspector, pipeline: Pipeline, where: Literal["tracks", "tasks"]
) -> sa.Table:
    roles: dict[str, str] = dict(getattr(pipeline, where))
    schema, name = split_table(roles.pop("table"))
    roles.pop("subject", None)
    try:
        found = {column["name"]: column for column in inspector.get_columns(name, schema)}
    except sa.exc.NoSuchTableError:
        tables = inspector.get_table_names(schema) + inspector.get_view_names(schema)
        raise InputError(
            f"pipeline {pipeline.name!r}: {where}.table: no table {name!r} in schema "
            f"{schema or inspector.default_schema_name!r} that this user can see"
            f"{nearest(name, tables)}; check the file, the database name and search_path"
        ) from None
    for role, column in roles.items():
        if column not in found and role not in _SUBJECT_ROLES:
            raise InputError(
                f"pipeline {pipeline.name!r}: {where}.{role}: table {name!r} has no column "
                f"{column!r}{nearest(column, found)}; it has {', '.join(found)}"
            )
    role_of = {column: role for role, column in roles.items()}
    return sa.Table(
        name,
        sa.MetaData(),
        *(
            # A plain column that has a role's name must not shadow that role.
            sa.Column(c, info["type"], key=role_of.get(c, f"column {c}" if c in roles else c))
            for c, info in found.items()
        ),
        schema=schema,
    )


def allowed_stages(connection: sa.Connection, tracks: sa.Table) -> list[str] | None:
    """The stages that the table's CHECKs leave to a track; None where there is no such CHECK."""
    parameters = {"table": quoted(tracks), "column": tracks.c.stage.name}
    lists = [literals(check) for check in connection.scalars(_STAGE_CHECKS, parameters)]
    return [stage for stage in lists[0] if all(stage in each for each in lists)] if lists else None


def _variant(inspector: sa.Inspector, pipeline: Pipeline, tasks: sa.Table) -> Variant:
    schema, name = split_table(pipeline.tasks.table)
    keys = {
        frozenset(index["column_names"])
        for index in inspector.get_indexes(name, schema)
        if index["unique"] and not index.get("dialect_options", {}).get("postgresql_where")
    }
    keys.add(frozenset(inspector.get_pk_constraint(name, schema)["constrained_columns"]))
    roles = pipeline.tasks
    if frozenset((roles.subject_type, roles.subject_id, roles.task_type)) in keys:
        return "b"
    if frozenset((roles.track_id, roles.task_type)) in keys:
        return "a"
    raise InputError(
        f"pipeline {pipeline.name!r}: tasks.table: {tasks.fullname} has no unique key on "
        f"({roles.track_id}, {roles.task_type}) or "
        f"({roles.subject_type}, {roles.subject_id}, {roles.task_type}), expected one of them"
    )


def _dashboards(inspector: sa.Inspector, pipeline: Pipeline) -> dict[str, sa.Table]:
    needed = {
        "task_summary": {"task_type", "status", "count"},
        "audio_progress": {pipeline.tracks.id, "pending"},
    }
    views = {}
    for role, name in dict(pipeline.dashboards).items():
        schema, view = split_table(name)
        try:
            found = [c["name"] for c in inspector.get_columns(view, schema)]
        except sa.exc.NoSuchTableError:
            continue
        if needed[role] <= set(found):
            views[role] = sa.Table(view, sa.MetaData(), *map(sa.Column, found), schema=schema)
    return views
