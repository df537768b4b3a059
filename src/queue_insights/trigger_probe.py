"""Proof that the trigger works: a track is taken through every stage, and all of it rolled back."""

from dataclasses import dataclass, field

import psycopg
import sqlalchemy as sa

from queue_insights.formats import visible
from queue_insights.schema import Schema


@dataclass
class Proof:
    """What a probe found. ``stages``: how many it went through; ``missing``: what a track did not
    get at one; ``error``: why it could not be moved on; ``ours``: in the trigger's function."""

    stages: int = 0
    missing: list[str] = field(default_factory=list)
    error: str = ""
    ours: bool = False

    @property
    def problems(self) -> list[str]:
        return [*self.missing, *([self.error] if self.error else [])]


def probe(connection: sa.Connection, schema: Schema, function: str) -> Proof:
    """Move one track through all stages at which a task is due, and see that it gets its rows.

    In a savepoint that is rolled back: nothing stays changed but sequences. It takes a track that
    nobody has locked. *function* is the trigger's name.
    """
    proof = Proof()
    savepoint = connection.begin_nested()
    try:
        _walk(connection, schema, proof)
    except sa.exc.DBAPIError as error:
        _note(proof, error.orig, function)
    finally:
        savepoint.rollback()
    return proof


def _walk(connection: sa.Connection, schema: Schema, proof: Proof) -> None:
    tracks, tasks, due = schema.tracks, schema.tasks, schema.pipeline.tasks_due
    stages = list(dict.fromkeys(step.stage for step in schema.pipeline.steps))
    # From elsewhere to the first stage, so that each update is a change.
    other = tracks.c.stage.is_distinct_from(stages[0])
    track = connection.scalar(
        sa.select(tracks.c.id).where(other).limit(1).with_for_update(skip_locked=True)
    )
    if track is None:
        proof.error = f"there is no track in {tracks.fullname} that could be tried"
        return
    rows = sa.and_(schema.of_track(tasks, tracks), tracks.c.id == track, tasks.c.task_type.in_(due))
    connection.execute(sa.delete(tasks).where(sa.exists().select_from(tracks).where(rows)))
    got = sa.select(tasks.c.task_type).select_from(tracks.join(tasks, rows))
    for stage in stages:
        moved = sa.update(tracks).where(tracks.c.id == track).values({tracks.c.stage: stage})
        connection.execute(moved)
        found = connection.scalars(got.where(tasks.c.status == "pending")).all()
        proof.missing += [
            f"a track that reaches {visible(stage)!r} gets no {visible(step.task)} row"
            for step in schema.pipeline.steps
            if step.stage == stage and step.task not in found
        ]
        proof.stages += 1


def _note(proof: Proof, error: BaseException | None, function: str) -> None:
    """Why a track could not be moved; being locked out passes, and is for the caller to retry."""
    if not isinstance(error, psycopg.Error) or error.sqlstate in ("55P03", "40P01"):
        raise error or AssertionError("unreachable")
    proof.error = f"a change of stage fails: {error.diag.message_primary or error}"
    proof.ours = function in (error.diag.context or "")
