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
changed AS (SELECT DISTINCT id::text AS row_id FROM given),
dropped AS (
    SELECT id, 'it is exhausted no more' AS reason FROM chosen_job
    WHERE NOT EXISTS (SELECT FROM changed WHERE row_id = id)),
{% include "recorded.sql" %},
          (SELECT count(*) FROM changed WHERE (row_id IN (SELECT id FROM chosen_job)) IS NOT TRUE) AS strays
