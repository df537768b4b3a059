"""Undo: batch by batch backwards, exactly what is still as the run left it.

A row is as the run left it if its digest is the one that the batch recorded: undoing a later run
first makes it so again.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from queue_insights.actions import ledger
from queue_insights.actions.batch import CHANGED, digest, imaged, json_object
from queue_insights.actions.definitions import ACTIONS, Action
from queue_insights.actions.ledger import BATCHES, RUNS
from queue_insights.schema import Schema


def batch(context: Any, chunks: int) -> int | None:
    """Undo the last batch that is not undone; how many rows it settled, None if none is left."""
    run = context.row["run"]
    with context.database.write() as connection:
        ledger.begin(connection)
        ledger.hold(connection, run, context.fence)
        last = (
            sa.select(BATCHES.c.batch)
            .where(BATCHES.c.run == run, BATCHES.c.undone_at.is_(None))
            .order_by(BATCHES.c.batch.desc())
            .limit(1)
        )
        number = connection.scalar(last)
        if number is None:
            return None
        action = ACTIONS[context.row["action"]]
        statement = _statement(context.queue.schema, action)
        undone, kept = connection.execute(statement, {"of_run": run, "number": number}).one()
    return int(undone + kept)


def _statement(schema: Schema, action: Action) -> sa.Update:
    of_run = sa.bindparam("of_run", type_=sa.BigInteger())
    mine = sa.and_(BATCHES.c.run == of_run, BATCHES.c.batch == sa.bindparam("number"))
    entry = sa.select(BATCHES.c.ids, BATCHES.c.digests, BATCHES.c.before).where(mine).cte("entry")
    restored = _RESTORE[action.kind](schema, entry)
    ids = sa.select(sa.func.unnest(entry.c.ids).label("id")).cte("ids")
    kept = _kept(schema, action, ids, restored)
    entries = json_object({"id": kept.c.id, "reason": kept.c.reason})
    listed = sa.select(sa.func.jsonb_agg(entries)).select_from(kept).scalar_subquery()
    marked = (
        sa.update(BATCHES)
        .where(mine)
        .values(
            undone_at=sa.func.now(),
            kept=sa.func.coalesce(listed, sa.cast(sa.literal("[]"), postgresql.JSONB)),
        )
        .cte("marked")
    )
    undone = sa.select(sa.func.count()).select_from(restored).scalar_subquery()
    left = sa.select(sa.func.count()).select_from(kept).scalar_subquery()
    return (
        sa.update(RUNS)
        .where(RUNS.c.run == of_run)
        .values(
            rows_undone=RUNS.c.rows_undone + undone,
            rows_kept=RUNS.c.rows_kept + left,
            last_batch_at=sa.func.clock_timestamp(),
        )
        .returning(undone.label("undone"), left.label("kept"))
        .add_cte(marked)
    )


def _untouched(schema: Schema, entry: sa.CTE) -> sa.CTE:
    """The rows of the batch that are still as it left them, locked."""
    row = schema.tasks.alias("task")
    left = (
        sa.func.unnest(entry.c.ids, entry.c.digests)
        .table_valued(sa.column("id", sa.Text), sa.column("digest", sa.BigInteger), name="left_as")
        .render_derived()
    )
    same = row.c.id == sa.cast(left.c.id, row.c.id.type)
    return (
        sa.select(row.c.id)
        .select_from(entry.join(left, sa.true()).join(row, same))
        .where(digest(schema, row) == left.c.digest)
        .with_for_update(of=row)
        .cte("untouched")
    )


def _uninsert(schema: Schema, entry: sa.CTE) -> sa.CTE:
    tasks, untouched = schema.tasks, _untouched(schema, entry)
    gone = sa.delete(tasks).where(tasks.c.id == untouched.c.id)
    return gone.returning(tasks.c.id.label("id")).cte("restored")


def _unupdate(schema: Schema, entry: sa.CTE) -> sa.CTE:
    tasks, untouched = schema.tasks, _untouched(schema, entry)
    image = _images(schema, entry, ("id", *CHANGED))
    return (
        sa.update(tasks)
        .where(tasks.c.id == untouched.c.id, tasks.c.id == image.c[tasks.c.id.name])
        .values({tasks.c[key]: image.c[tasks.c[key].name] for key in CHANGED})
        .returning(tasks.c.id.label("id"))
        .cte("restored")
    )


def _undelete(schema: Schema, entry: sa.CTE) -> sa.CTE:
    tasks, tracks = schema.tasks, schema.tracks.alias("track")
    keys = [key for key, column in tasks.c.items() if column.computed is None]
    image = _images(schema, entry, tasks.c.keys())
    parent = sa.exists().where(tracks.c.id == image.c[tasks.c.track_id.name]).correlate(image)
    values = (sa.cast(image.c[tasks.c[key].name], tasks.c[key].type) for key in keys)
    back = sa.select(*values).where(parent)
    return (
        postgresql.insert(tasks)
        .from_select(keys, back)
        .on_conflict_do_nothing()
        .returning(tasks.c.id.label("id"))
        .cte("restored")
    )


_RESTORE = {"insert": _uninsert, "update": _unupdate, "delete": _undelete}


def _images(schema: Schema, entry: sa.CTE, keys: Any) -> sa.FromClause:
    """The rows as they were before the batch, as ``imaged``."""
    columns = [schema.tasks.c[key] for key in keys]
    return (
        sa.func.jsonb_to_recordset(sa.select(entry.c.before).scalar_subquery())
        .table_valued(*(sa.column(c.name, imaged(c).type) for c in columns), name="image")
        .render_derived(with_types=True)
    )


def _kept(schema: Schema, action: Action, ids: sa.CTE, restored: sa.CTE) -> sa.CTE:
    """The rows that were not put back, and why."""
    row = schema.tasks.alias("task")
    if action.kind == "delete":
        reason: Any = sa.literal("its track is gone, or has another row by now")
    else:
        reason = sa.case(
            (row.c.id.is_(None), "it is gone"),
            else_="it has changed since: " + sa.func.coalesce(row.c.status, "no status"),
        )
    return (
        sa.select(ids.c.id, reason.label("reason"))
        .select_from(ids.outerjoin(row, row.c.id == sa.cast(ids.c.id, row.c.id.type)))
        .where(~sa.exists().where(sa.cast(restored.c.id, sa.Text) == ids.c.id))
        .cte("kept")
    )
