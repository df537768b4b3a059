{% from "actions.sql" import digest with context %}
-- Undo one batch: what is still as the batch left it (by the digest that was recorded) goes back as it was.
WITH entry AS (
    SELECT ids, digests, before FROM queue_insights.batches WHERE run = :run AND batch = :batch),
{% if kind == "delete" %}
restored AS (
    INSERT INTO {{ tasks.table }} AS k ({{ image_columns | wrapped(8, 40) }}) OVERRIDING SYSTEM VALUE
    SELECT {{ image_values | wrapped(11, 11) }}
    FROM jsonb_to_recordset((SELECT before FROM entry)) AS image ({{ image_types | wrapped(8, 60) }})
    WHERE EXISTS (SELECT FROM {{ tracks.rows }} AS t WHERE t.{{ tracks.id }} = image.{{ tasks.track_id }})
    ON CONFLICT DO NOTHING
    RETURNING k.{{ tasks.id }} AS id),
{% else %}
untouched AS (
    SELECT k.{{ tasks.id }} AS id
    FROM entry CROSS JOIN unnest(entry.ids, entry.digests) AS left_as (id, digest)
    JOIN {{ tasks.rows }} AS k ON k.{{ tasks.id }} = left_as.id::{{ task_id_type }}
    WHERE {{ digest() }} = left_as.digest
    FOR UPDATE OF k),
restored AS (
{% if kind == "insert" %}
    DELETE FROM {{ tasks.rows }} AS k USING untouched WHERE k.{{ tasks.id }} = untouched.id
{% else %}
    UPDATE {{ tasks.rows }} AS k
    SET {{ image_settings | wrapped(8, 8) }}
    FROM untouched, jsonb_to_recordset((SELECT before FROM entry)) AS image ({{ image_types | wrapped(8, 60) }})
    WHERE k.{{ tasks.id }} = untouched.id AND k.{{ tasks.id }} = image.{{ tasks.id }}
{% endif %}
    RETURNING k.{{ tasks.id }} AS id),
{% endif %}
kept AS (
    SELECT ids.id, {% if kind == "delete" %}'its track is gone, or has another row by now'
           {%- else %}CASE WHEN k.{{ tasks.id }} IS NULL THEN 'it is gone'
               ELSE 'it has changed since: ' || coalesce(k.{{ status_text }}, 'no status') END{% endif %} AS reason
    FROM (SELECT unnest(ids) AS id FROM entry) AS ids
    LEFT JOIN {{ tasks.rows }} AS k ON k.{{ tasks.id }} = ids.id::{{ task_id_type }}
    WHERE NOT EXISTS (SELECT FROM restored WHERE restored.id::text = ids.id)),
marked AS (
    UPDATE queue_insights.batches
    SET undone_at = now(), kept = coalesce((SELECT jsonb_agg(jsonb_build_object('id', id, 'reason', reason)) FROM kept), '[]')
    WHERE run = :run AND batch = :batch)
UPDATE queue_insights.runs
SET rows_undone = rows_undone + (SELECT count(*) FROM restored), rows_kept = rows_kept + (SELECT count(*) FROM kept),
    last_batch_at = clock_timestamp()
WHERE run = :run
RETURNING (SELECT count(*) FROM restored) AS done, (SELECT count(*) FROM kept) AS dropped
