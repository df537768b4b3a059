-- One batch of a retry by the queue's own rule, which says what was retried: whatever else was chosen was not to be
-- retried any more.
WITH taken_chunk AS (
    DELETE FROM queue_insights.targets
    WHERE run = :run AND task_type = {{ step.task | text }} AND chunk >= :first AND chunk < :beyond
    RETURNING ids),
chosen_job AS (SELECT each.id FROM taken_chunk CROSS JOIN unnest(taken_chunk.ids) AS each (id)),
given (id) AS (
    {{ retry }}
),
changed AS (SELECT DISTINCT id::text AS id FROM given),
dropped AS (
    SELECT id, 'it is exhausted no more' AS reason FROM chosen_job
    WHERE NOT EXISTS (SELECT FROM changed WHERE changed.id = chosen_job.id)),
recorded AS (
    INSERT INTO queue_insights.batches (run, batch, task_type, fence, ids, digests, before, dropped)
    SELECT :run, (SELECT coalesce(max(batch), 0) + 1 FROM queue_insights.batches WHERE run = :run),
           {{ step.task | text }}, :fence, coalesce(array_agg(id), '{}'), '{}', NULL,
           coalesce((SELECT jsonb_agg(jsonb_build_object('id', id, 'reason', reason)) FROM dropped), '[]')
    FROM changed)
UPDATE queue_insights.runs
SET rows_done = rows_done + (SELECT count(*) FROM changed),
    rows_dropped = rows_dropped + (SELECT count(*) FROM dropped),
    last_batch_at = clock_timestamp()
WHERE run = :run
RETURNING (SELECT count(*) FROM changed) AS done, (SELECT count(*) FROM dropped) AS dropped,
          (SELECT count(*) FROM changed WHERE (id IN (SELECT id FROM chosen_job)) IS NOT TRUE) AS strays
