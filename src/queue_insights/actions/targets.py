"""What a run is to do, listed once when it begins, in order, in chunks that batches take away."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by

from queue_insights.actions.batch import OF_RUN
from queue_insights.actions.definitions import Action, Parameters, selection
from queue_insights.actions.ledger import TARGETS
from queue_insights.queue import Queue

CHUNK = 50  # targets that are taken together; the smallest batch
ALL = 2**62
CHUNKS_PER_STEP = 10**12  # so that the chunks of one step come after those of the one before


def store(
    queue: Queue, action: Action, parameters: Parameters, planned: dict[str, int] | None
) -> sa.Select[Any]:
    """Store the first *planned* rows of each task in order of arrival, in chunks; returns, for
    each task, how many rows there are."""
    steps = queue.pipeline.select(parameters.tasks)
    limits = (planned[step.task] if planned is not None else ALL for step in steps)
    step = (
        sa.values(
            sa.column("position", sa.Integer),
            sa.column("task_type", sa.Text),
            sa.column("planned", sa.BigInteger),
            name="step",
        )
        .data([(i, s.task, n) for i, (s, n) in enumerate(zip(steps, limits, strict=True))])
        .cte("step")
    )
    # A run takes all of them: the planner may do that in one go.
    found = selection(queue.schema, action, parameters, whole=True)
    order = (found.c.arrived_at, found.c.track_id)
    number = sa.func.row_number().over(partition_by=found.c.position, order_by=order) - 1
    row = sa.select(
        found.c.position,
        sa.cast(found.c.id, sa.Text).label("id"),
        found.c.arrived_at,
        number.label("number"),
    ).subquery("row")
    part = row.c.number.op("/")(sa.literal_column(str(CHUNK))).label("part")
    ids, arrived = (
        sa.func.array_agg(aggregate_order_by(column, row.c.number), type_=sa.ARRAY(column.type))
        for column in (row.c.id, row.c.arrived_at)
    )
    columns = (row.c.position, part, ids.label("ids"), arrived.label("arrived"))
    chunk = sa.select(*columns).group_by(row.c.position, part).cte("chunk")
    left = sa.cast(sa.func.least(step.c.planned - chunk.c.part * CHUNK, CHUNK), sa.Integer)
    rows = (
        sa.select(
            OF_RUN,
            chunk.c.position * sa.literal_column(str(CHUNKS_PER_STEP)) + chunk.c.part,
            step.c.task_type,
            chunk.c.ids[1:left],
            chunk.c.arrived[1:left],
        )
        .join_from(chunk, step, step.c.position == chunk.c.position)
        .where(left > 0)
    )
    columns_stored = ["run", "chunk", "task_type", "ids", "arrived"]
    stored = sa.insert(TARGETS).from_select(columns_stored, rows).cte("stored")
    count = sa.func.coalesce(sa.func.sum(sa.func.cardinality(chunk.c.ids)), 0)
    return (
        sa.select(step.c.task_type, count.label("rows"))
        .select_from(step.outerjoin(chunk, step.c.position == chunk.c.position))
        .group_by(step.c.task_type)
        .add_cte(stored)
    )
