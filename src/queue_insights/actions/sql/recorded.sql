recorded AS (
    INSERT INTO queue_insights.batches (run, batch, task_type, fence, ids, digests, before, dropped)
    SELECT :run, (SELECT coalesce(max(batch), 0) + 1 FROM queue_insights.batches WHERE run = :run),
           {{ step.task | text }}, :fence, coalesce(array_agg(row_id::text), '{}'),
           {% if kind == "vendor" %}'{}'{% else %}coalesce(array_agg(digest), '{}'){% endif %},
           {% if kind in ("insert", "vendor") %}NULL,
           {%- else %}(SELECT jsonb_agg(before) FROM locked WHERE id IN (SELECT row_id FROM changed)),{% endif +%}
           coalesce((SELECT jsonb_agg(jsonb_build_object('id', id, 'reason', reason)) FROM dropped), '[]')
    FROM changed)
UPDATE queue_insights.runs
SET rows_done = rows_done + (SELECT count(*) FROM changed),
    rows_dropped = rows_dropped + (SELECT count(*) FROM dropped),
    last_batch_at = clock_timestamp()
WHERE run = :run
RETURNING (SELECT count(*) FROM changed) AS done, (SELECT count(*) FROM dropped) AS dropped
