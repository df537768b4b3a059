"""The statements of an action: what it takes, one batch of it, and the undo of a batch."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from queue_insights.actions.definitions import Action, Parameters
from queue_insights.schema import Schema
from queue_insights.sql import Query, identifier, text

TURNS = 6  # how often a locked row comes again before it is given up
LOCKED = "locked by another session"
# What an update may change; undo puts all of these back.
CHANGED = (
    *("status", "attempts", "max_attempts", "next_retry_at"),
    *("completed_at", "processing_duration_ms"),
)
# Types that Postgres can hash; a value of another type is hashed as its text.
_HASHABLE = {
    *("text", '"char"', "character", "character varying", "name", "citext", "uuid", "bytea"),
    *("smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean"),
    *("date", "interval", "time without time zone", "time with time zone"),
    *("timestamp without time zone", "timestamp with time zone"),
}


class _Named:
    """Stands for a relation's row where a template expects a table: its columns are the roles."""

    def __getattr__(self, role: str) -> Markup:
        return identifier(role)


def selection(
    schema: Schema,
    action: Action,
    parameters: Parameters,
    file: str,
    planned: Mapping[str, int] | None = None,
    **values: Any,
) -> Query:
    """The rows that the action takes, asked for by the template *file*: plan_counts.sql,
    plan_rows.sql or list.sql (of each task no more than *planned*)."""
    steps = schema.pipeline.select(parameters.tasks)
    limits = {step.task: (planned or {}).get(step.task) for step in steps}
    given = parameters.context(action) | {"named": _Named(), "planned": limits}
    counts = frozenset(("rows", "ends_pending", "ends_exhausted"))
    return Query(schema.render(file, steps, **given), values, counts)


def batch(schema: Schema, action: Action, parameters: Parameters, task: str) -> str:
    """The one statement that does a batch of *task*, with the parameters run, fence, first and
    beyond (the chunks that it takes)."""
    (step,) = schema.pipeline.select(task)
    keys = ["track_id", "task_type"]
    keys += ["subject_type", "subject_id"] if schema.variant == "b" else []
    roles = schema.tasks.roles
    inserted = (*keys, "status", "attempts", "max_attempts", "created_at")
    return schema.render(
        "batch.sql",
        [step],
        **parameters.context(action),
        step=step,
        key_roles=keys,
        inserted=[identifier(roles[role]) for role in inserted],
        unique_key=[identifier(roles[role]) for role in schema.unique_key],
        turns=TURNS,
        locked=LOCKED,
        given_up=f"still {LOCKED} after {TURNS} turns",
        **_rows(schema, action),
    )


def undo(schema: Schema, action: Action) -> str:
    """The one statement that undoes a batch, with the parameters run and batch."""
    return schema.render("undo.sql", kind=action.kind, action=action.name, **_rows(schema, action))


def _rows(schema: Schema, action: Action) -> dict[str, Any]:
    """How rows are recorded, told apart, and put back."""
    tasks, tracks = schema.tasks, schema.tracks
    changed = [tasks.roles[role] for role in CHANGED]
    columns = list(tasks.columns) if action.kind == "delete" else [tasks.roles["id"], *changed]
    back = [column for column in columns if column not in tasks.generated]
    return {
        "task_id_type": Markup(tasks.columns[tasks.roles["id"]]),
        "track_id_type": Markup(tracks.columns[tracks.roles["id"]]),
        "digest_columns": list(_hashed(schema)),
        "image": [_pair(column, tasks.columns[column]) for column in columns],
        "image_columns": list(map(identifier, back)),
        "image_types": [
            Markup(f"{identifier(c)} {_image_type(tasks.columns[c])}") for c in columns
        ],
        "image_values": [
            Markup(f"CAST(image.{identifier(c)} AS {tasks.columns[c]})") for c in back
        ],
        "image_settings": [
            Markup(f"{identifier(c)} = image.{identifier(c)}") for c in dict.fromkeys(changed)
        ],
    }


def _hashed(schema: Schema) -> Iterator[Markup]:
    """The columns of row k whose hash tells whether it has changed: all but updated_at."""
    tasks = schema.tasks
    for column, kind in tasks.columns.items():
        if column != tasks.roles["updated_at"]:
            plain = kind in _HASHABLE or column in tasks.enums
            yield Markup(f"k.{identifier(column)}{'' if plain else '::text'}")


def _image_type(kind: str) -> str:
    # As text: a JSON null in an object of columns would read as an SQL null.
    return "text" if kind in ("json", "jsonb") else kind


def _pair(column: str, kind: str) -> Markup:
    cast = "::text" if _image_type(kind) != kind else ""
    return Markup(f"{text(column)}, k.{identifier(column)}{cast}")


@cache
def named(name: str, file: str = "statements.sql") -> str:
    """One of the ledger's statements, which stand in one file, each below ``-- name: NAME``."""
    parts = (Path(__file__).parent / "sql" / file).read_text("utf-8").split("-- name: ")
    found = dict(part.split("\n", 1) for part in parts[1:])
    return found[name].strip()
