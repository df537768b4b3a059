"""The statements of an action: what it takes, one batch of it, and the undo of a batch."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from queue_insights.actions.definitions import Action, Parameters
from queue_insights.job_schema import JobSchema
from queue_insights.pipeline import Step
from queue_insights.schema import KEYS, AnySchema, Schema
from queue_insights.sql import Query, escaped, identifier, text

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


def selection(
    schema: AnySchema,
    action: Action,
    parameters: Parameters,
    steps: Sequence[Step],
    file: str,
    planned: Mapping[str, int] | None = None,
    **values: Any,
) -> Query:
    """The rows that the action takes at these *steps*, asked for by the template *file*:
    plan_counts.sql, plan_rows.sql or list.sql (of each task no more than *planned*)."""
    limits = {step.task: (planned or {}).get(step.task) for step in steps}
    given = parameters.context(action) | {"planned": limits}
    counts = frozenset(("rows", "ends_pending", "ends_exhausted"))
    values |= {"ids": parameters.ids or []}
    return Query(schema.render(file, steps, **given), values, counts)


def batch(schema: AnySchema, action: Action, parameters: Parameters, step: Step) -> str:
    """The one statement that does a batch at *step*, with the parameters run, fence, first and
    beyond (the chunks that it takes)."""
    if isinstance(schema, JobSchema):
        return schema.render("vendor.sql", step=step, kind=action.kind, retry=schema.retry)
    roles, track = schema.tasks.roles, Markup("id")
    inserted = {"track_id": track, "task_type": text(step.task), "status": text("pending")}
    inserted |= {"attempts": Markup("0"), "max_attempts": Markup(str(step.max_attempts))}
    inserted |= {"created_at": Markup("arrived")}
    if schema.variant == "b":
        subject = text(schema.pipeline.tasks.subject)
        inserted |= {"subject_type": subject, "subject_id": track}
    return schema.render(
        "batch.sql",
        [step],
        **parameters.context(action),
        step=step,
        inserted={identifier(roles[role]): value for role, value in inserted.items()},
        unique_key=[identifier(roles[role]) for role in KEYS[schema.variant]],
        **_rows(schema, action),
    )


def undo(schema: Schema, action: Action) -> str:
    """The one statement that undoes a batch, with the parameters run and batch."""
    return schema.render("undo.sql", kind=action.kind, action=action.name, **_rows(schema, action))


def _rows(schema: Schema, action: Action) -> dict[str, Any]:
    """How rows are recorded, told apart (by all columns but updated_at), and put back. A value is
    recorded as text, which Postgres reads as input of its column's type (but of JSON, as a JSON
    text)."""
    tasks, columns = schema.tasks, schema.tasks.columns
    changed = list(dict.fromkeys(tasks.roles[role] for role in CHANGED))
    recorded = list(columns) if action.kind == "delete" else [tasks.roles["id"], *changed]
    back = [column for column in recorded if not columns[column].generated]
    image, image_types, digest = [], [], []
    for column in recorded:
        name, kind = identifier(column), columns[column]
        image.append(Markup(f"{text(column)}, k.{name}::text"))
        json = kind.base in ("json", "jsonb")
        image_types.append(Markup(f"{name} {'text' if json else escaped(kind.exact)}"))
    for column, kind in columns.items():
        if column != tasks.roles["updated_at"]:
            plain = kind.type in _HASHABLE or (kind.labels is not None and kind.type == kind.base)
            digest.append(Markup(f"k.{identifier(column)}{'' if plain else '::text'}"))
    return {
        "task_id_type": escaped(tasks.column("id").exact),
        "track_id_type": escaped(schema.tracks.column("id").exact),
        **{"digest_columns": digest, "image": image, "image_types": image_types},
        "image_columns": [identifier(c) for c in back],
        "image_values": [
            Markup(f"CAST(image.{identifier(c)} AS {escaped(columns[c].exact)})") for c in back
        ],
        "image_settings": [Markup(f"{identifier(c)} = image.{identifier(c)}") for c in changed],
    }


@cache
def named(name: str) -> str:
    """One of the ledger's statements, which stand in one file, each below ``-- name: NAME``."""
    stored = (Path(__file__).parent / "sql" / "statements.sql").read_text("utf-8")
    found = dict(part.split("\n", 1) for part in stored.split("-- name: ")[1:])
    return found[name].strip()
