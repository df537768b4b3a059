"""The trigger as SQL, generated from the pipeline for the variant at hand."""

import hashlib
import itertools
from dataclasses import dataclass

import sqlalchemy as sa

from queue_insights.formats import visible
from queue_insights.migration import SCHEMA_OF, Label, Migration, literal, name, table_name
from queue_insights.pipeline import Pipeline, Step, split_table
from queue_insights.schema import Schema

_ABOUT = """\
queue-insights trigger: pipeline {pipeline}, variant {variant}
tracks: {tracks}    tasks: {tasks}

When a track reaches a stage at which a task is due, the task table gets a pending row for it, in
the same transaction, so that work which waits can be seen and counted. It fires when a track is
inserted at such a stage, and when an update changes its stage to one (null counts as a value).
{cost}

A row that exists is left as it is: a track that comes back to a stage whose task is completed gets
nothing (`queue-insights audit` shows it as drifted, `requeue` is for that). Any other failure, such
as a CHECK that does not know the task, fails the stage change, as with every trigger: swallowing it
would take a subtransaction for each row, and bring hidden work back without a word. So run
`queue-insights trigger verify --probe` in the tests of every migration of these tables, and after.

Rights: run it as the owner of both tables. SECURITY DEFINER lets whoever may change a track do so
without rights on the task table. The search_path is pinned and every name qualified; nobody but the
owner can put the function on another table. It lives beside the tracks, and goes with that schema.

Locks: SHARE ROW EXCLUSIVE on the tracks for a moment (down: ACCESS EXCLUSIVE). If writers are in
the way, lock_timeout ends it, nothing has changed, and it can be run again. Needs PostgreSQL 14.

Tracks that are at a stage already get no row by it: afterwards, run `queue-insights backfill`."""

_UP = """\
-- Made for this unique key: plans the insert without running it, and fails if there is another.
EXPLAIN (COSTS OFF) INSERT INTO {tasks}
    ({columns})
VALUES ({nulls})
ON CONFLICT ({key}) DO NOTHING;

CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS {quote}{body}{quote};
REVOKE ALL ON FUNCTION {function}() FROM PUBLIC;

CREATE OR REPLACE TRIGGER {insert}
AFTER INSERT ON {tracks} FOR EACH ROW
WHEN (NEW.{stage} IN ({stages}))
EXECUTE FUNCTION {function}();

CREATE OR REPLACE TRIGGER {update}
AFTER UPDATE {of_stage}ON {tracks} FOR EACH ROW
WHEN (OLD.{stage} IS DISTINCT FROM NEW.{stage} AND NEW.{stage} IN ({stages}))
EXECUTE FUNCTION {function}();"""

_BRANCH = """\
IF {stage} THEN
        INSERT INTO {tasks}
            ({columns})
        VALUES {values}
        ON CONFLICT ({key}) DO NOTHING;"""

_DOWN = """\
DROP TRIGGER IF EXISTS {insert} ON {tracks};
DROP TRIGGER IF EXISTS {update} ON {tracks};
DROP FUNCTION IF EXISTS {function}();"""


@dataclass(frozen=True)
class Names:
    """What the trigger's objects are called: the same for the same tables, so that no second pair
    of triggers can stand beside the first. ``schema`` is that of the tracks."""

    schema: str | None
    tracks: str
    function: str

    @classmethod
    def of(cls, schema: str | None, tracks: str, tasks: str) -> "Names":
        """The names for two tables."""
        function = f"queue_insights_{tracks}_to_{tasks}"
        if len(function.encode()) > 56:  # Postgres cuts names at 63 bytes
            function = f"queue_insights_{hashlib.sha256(function.encode()).hexdigest()[:12]}"
        return cls(schema, tracks, function)

    @property
    def insert(self) -> str:
        return f"{self.function}_insert"

    @property
    def update(self) -> str:
        return f"{self.function}_update"

    @property
    def sql(self) -> dict[str, str]:
        """The quoted names, as the templates call them."""
        return {
            "tracks": name(self.schema, self.tracks),
            "function": name(self.schema, self.function),
            "insert": name(self.insert),
            "update": name(self.update),
        }

    @property
    def down(self) -> str:
        """The statements that remove the trigger."""
        return _DOWN.format(**self.sql)


def names(connection: sa.Connection, pipeline: Pipeline) -> Names:
    """The names in this database, whatever has become of the task table. The schema is None if
    there is no table of tracks."""
    table = split_table(pipeline.tracks.table)
    schema = connection.scalar(SCHEMA_OF, {"name": name(*table)})
    return Names.of(schema, table[1], split_table(pipeline.tasks.table)[1])


def body(schema: Schema) -> str:
    """The function's source: one static INSERT per stage."""
    branches = [
        _BRANCH.format(
            stage=f"NEW.{name(schema.tracks.c.stage.name)} = {literal(stage)}",
            tasks=table_name(schema.tasks),
            columns=_columns(schema),
            values=",\n               ".join(_values(schema, step) for step in steps),
            key=_key(schema),
        )
        for stage, steps in itertools.groupby(schema.pipeline.steps, key=lambda step: step.stage)
    ]
    chain = "\n    ELS".join(branches)
    return f"\nBEGIN\n    {chain}\n    END IF;\n    RETURN NULL;\nEND\n"


def _roles(schema: Schema) -> list[str]:
    subject = ["subject_type", "subject_id"] if schema.variant == "b" else []
    rest = ["task_type", "status", "attempts", "max_attempts", "created_at"]
    return [*subject, "track_id", *rest]


def _columns(schema: Schema) -> str:
    return ", ".join(name(schema.tasks.c[role].name) for role in _roles(schema))


def _key(schema: Schema) -> str:
    return ", ".join(name(schema.tasks.c[role].name) for role in schema.unique_key)


def _values(schema: Schema, step: Step) -> str:
    track = f"NEW.{name(schema.tracks.c.id.name)}"
    values = {
        "subject_type": literal(schema.pipeline.tasks.subject),
        "subject_id": track,
        "track_id": track,
        "task_type": literal(step.task),
        "status": "'pending'",
        "attempts": "0",
        "max_attempts": literal(step.max_attempts),
        "created_at": "now()",
    }
    return f"({', '.join(values[role] for role in _roles(schema))})"


@dataclass(frozen=True)
class Trigger:
    """The trigger for a schema whose tables are ``migration.qualified``.

    ``any_update``: another trigger sets the stage in updates that do not name it, so that firing
    only for those that do (``UPDATE OF``) would pass them by.
    """

    schema: Schema
    any_update: bool = False

    @property
    def names(self) -> Names:
        tracks = self.schema.tracks
        return Names.of(tracks.schema, tracks.name, self.schema.tasks.name)

    @property
    def stages(self) -> list[str]:
        """Those at which a task is due."""
        return list(dict.fromkeys(step.stage for step in self.schema.pipeline.steps))

    @property
    def columns(self) -> list[str]:
        """Those that the update trigger is for; empty for all."""
        return [] if self.any_update else [self.schema.tracks.c.stage.name]

    @property
    def source(self) -> str:
        """The function's source."""
        return body(self.schema)

    @property
    def label(self) -> Label:
        """What the function's comment says."""
        return Label.of(self.schema, _UP.format(**self._sql))

    @property
    def migration(self) -> Migration:
        """All of it, with what a DBA should know, and the way back."""
        sql, label = self._sql, self.label
        stage = sql["stage"]
        cost = f"Updates that do not name the column {stage} cost no more than without it."
        if self.any_update:
            cost = f"It looks at every update, because a BEFORE trigger sets {stage} by itself."
        facts = {
            "pipeline": f"{label.pipeline} ({label.fingerprint})",
            "variant": label.variant.upper(),
            "cost": cost,
        }
        about = _ABOUT.format(**{key: visible(text, 200) for key, text in (sql | facts).items()})
        comment = f"COMMENT ON FUNCTION {sql['function']}() IS {literal(str(label))};"
        return Migration(about, f"{_UP.format(**sql)}\n\n{comment}", self.names.down)

    @property
    def _sql(self) -> dict[str, str]:
        return self.names.sql | {
            "tasks": table_name(self.schema.tasks),
            "stage": name(self.schema.tracks.c.stage.name),
            "stages": ", ".join(map(literal, self.stages)),
            "of_stage": "".join(f"OF {name(column)} " for column in self.columns),
            "columns": _columns(self.schema),
            "nulls": ", ".join("NULL" for _ in _roles(self.schema)),
            "key": _key(self.schema),
            "body": self.source,
            "quote": _dollar_quote(self.source),
        }


def _dollar_quote(source: str) -> str:
    """A dollar quote that does not occur in *source*, which has names in it that are not ours."""
    tags = (f"$populate{number or ''}$" for number in itertools.count())
    return next(tag for tag in tags if tag not in source)
