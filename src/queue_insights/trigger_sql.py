"""The trigger as SQL, generated from the pipeline for the variant at hand."""

import hashlib
import itertools
from dataclasses import dataclass

import sqlalchemy as sa

from queue_insights.migration import Label, Migration, about
from queue_insights.pipeline import Step
from queue_insights.queries import compile_sql
from queue_insights.schema import Schema, quoted

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
    """What the trigger's objects and its table are called, as SQL writes it: the same for the same
    tables, so that no second pair of triggers can stand beside the first. ``plain`` is the
    function's name without schema and quotes."""

    plain: str
    tracks: str
    function: str
    insert: str
    update: str

    @classmethod
    def of(cls, schema: str | None, tracks: str, tasks: str) -> "Names":
        """The names for two tables; *schema* is that of the tracks, if it is known."""
        function = f"queue_insights_{tracks}_to_{tasks}"
        if len(function.encode()) > 56:  # Postgres cuts names at 63 bytes
            function = f"queue_insights_{hashlib.sha256(function.encode()).hexdigest()[:12]}"
        home = "" if schema is None else f"{quoted(schema)}."
        triggers = (quoted(f"{function}_{event}") for event in ("insert", "update"))
        return cls(function, home + quoted(tracks), home + quoted(function), *triggers)

    @property
    def down(self) -> str:
        """The statements that remove the trigger."""
        return _DOWN.format(**vars(self))


def _row(schema: Schema, step: Step) -> dict[str, str]:
    """The row that is due at a step, as SQL: the values by column, those of the key first."""
    track: sa.ColumnElement[str] = sa.literal_column(f"NEW.{quoted(schema.tracks.c.id.name)}")
    values = schema.naming(track, step.task) | {
        "status": sa.literal("pending"),
        "attempts": sa.literal(0),
        "max_attempts": sa.literal(step.max_attempts),
        "created_at": sa.func.now(),
    }
    roles = dict.fromkeys((*schema.unique_key[:-1], *values))
    return {quoted(schema.tasks.c[role].name): compile_sql(values[role]) for role in roles}


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
        """The function's source: one static INSERT per stage."""
        sql, steps = self._sql, self.schema.pipeline.steps
        branches = []
        for stage, due in itertools.groupby(steps, key=lambda step: step.stage):
            rows = (", ".join(_row(self.schema, step).values()) for step in due)
            values = ",\n               ".join(f"({row})" for row in rows)
            condition = f"NEW.{sql['stage']} = {_literal(stage)}"
            branches.append(_BRANCH.format(**sql | {"stage": condition, "values": values}))
        chain = "\n    ELS".join(branches)
        return f"\nBEGIN\n    {chain}\n    END IF;\n    RETURN NULL;\nEND\n"

    @property
    def label(self) -> Label:
        """What the function's comment says."""
        return Label.of(self.schema, self._up)

    @property
    def migration(self) -> Migration:
        """All of it, with what a DBA should know, and the way back."""
        stage = self._sql["stage"]
        cost = f"Updates that do not name the column {stage} cost no more than without it."
        if self.any_update:
            cost = f"It looks at every update, because a BEFORE trigger sets {stage} by itself."
        comment = self.label.comment(f"FUNCTION {self.names.function}()")
        text = about(_ABOUT, self.schema, cost=cost)
        return Migration(text, f"{self._up}\n\n{comment}", self.names.down)

    @property
    def _up(self) -> str:
        source = self.source
        # A dollar quote that does not occur in the source, which has names in it that are not ours.
        tags = (f"$populate{number or ''}$" for number in itertools.count())
        quote = next(tag for tag in tags if tag not in source)
        return _UP.format(**self._sql, body=source, quote=quote)

    @property
    def _sql(self) -> dict[str, str]:
        row, tasks = _row(self.schema, self.schema.pipeline.steps[0]), self.schema.tasks
        return vars(self.names) | {
            "tasks": quoted(tasks),
            "stage": quoted(self.schema.tracks.c.stage.name),
            "stages": ", ".join(map(_literal, self.stages)),
            "of_stage": "".join(f"OF {quoted(column)} " for column in self.columns),
            "columns": ", ".join(row),
            "nulls": ", ".join("NULL" for _ in row),
            "key": ", ".join(quoted(tasks.c[role].name) for role in self.schema.unique_key),
        }


def _literal(text: str) -> str:
    return compile_sql(sa.literal(text))
