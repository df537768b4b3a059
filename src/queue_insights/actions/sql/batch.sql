{% set locked, turns = "locked by another session", 6 %}
{% from "macros.sql" import state, ours, of_track, is_time with context %}
{% from "actions.sql" import takes, and_filters, attempts_after, limit_after, digest with context %}
{#- Whether row k, in that state, still qualifies, its track being at the stage given. -#}
{% macro qualifies(k, stage, arrived) -%}
{% if variant == "b" %}{{ ours(k) }} AND {% endif %}{{ k | id }}.{{ tasks.task_type }} = s.task_type
{%- if kind == "delete" %}

          AND {{ k | id }}.{{ tasks.status }} IN ('pending', 'failed') AND {{ stage }} IS DISTINCT FROM s.stage
          AND {{ takes(k, tasks, "" | sql) }}
{%- else %}

          AND {{ stage }} = s.stage AND {{ takes(k, tasks, "now_is.state" | sql) }}
{%- endif %}{{ and_filters(k, tasks, arrived) }}
{%- endmacro %}
{#- Its state by now. -#}
{% macro now_is(k) -%}
{% if kind == "update" %}

        CROSS JOIN LATERAL (SELECT {{ state(k, "s") }}) AS now_is (state)
{%- endif %}
{%- endmacro %}
-- One batch: take targets, check each again under lock, write, and record it. Rows that somebody has locked
-- come again later: a batch neither waits for a worker nor can deadlock with one. Each target is looked up by
-- itself (LATERAL, an array of ids): joined as a set, the planner might read the whole table for every batch.
WITH s (stage, task_type, stuck_after) AS (VALUES (
    {{ step.stage | text }}{{ as_stage }}, {{ step.task | text }}{{ as_task }}, {{ step.stuck_after | value }})),
{% include "todo.sql" %},
{% if kind == "insert" %}
locked AS (  -- FOR UPDATE: a track for which a worker is inserting a row just now counts as locked
    SELECT free.id, todo.arrived FROM todo CROSS JOIN s CROSS JOIN LATERAL (
        SELECT t.{{ tracks.id }} AS id FROM {{ tracks.rows }} AS t
        WHERE t.{{ tracks.id }} = todo.id::{{ track_id_type }} AND t.{{ tracks.stage }} = s.stage
        FOR UPDATE SKIP LOCKED) AS free
    WHERE ({{ is_time("todo.arrived" | sql) }}) IS NOT FALSE),  -- it is to be written
changed AS (
    INSERT INTO {{ tasks.table }} AS k ({{ inserted | wrapped(8, 40) }})
    SELECT {{ inserted.values() | wrapped(11, 11) }}
    FROM locked ORDER BY arrived, id
    ON CONFLICT ({{ unique_key | wrapped }}) DO NOTHING
    RETURNING k.{{ tasks.id }} AS row_id, k.{{ tasks.track_id }}::text AS target,
        {{ digest() }} AS digest),
{% else %}
locked AS (  -- those that still qualify, as they were, with their tracks: a move would change what the row is
    SELECT free.id, free.before FROM todo CROSS JOIN s
    CROSS JOIN LATERAL (
        SELECT k.{{ tasks.track_id }} AS track_id FROM {{ tasks.rows }} AS k
        WHERE k.{{ tasks.id }} = todo.id::{{ task_id_type }} LIMIT 1) AS owner
    LEFT JOIN LATERAL (
        SELECT t.{{ tracks.id }} AS id, t.{{ tracks.stage }} AS stage FROM {{ tracks.rows }} AS t
        WHERE t.{{ tracks.id }} = owner.track_id FOR SHARE SKIP LOCKED) AS parent ON true
    CROSS JOIN LATERAL (
        SELECT k.{{ tasks.id }} AS id, jsonb_build_object({{ image | wrapped(12, 50) }}
            ) AS before
        FROM {{ tasks.rows }} AS k{{ now_is("k") }}
        WHERE k.{{ tasks.id }} = todo.id::{{ task_id_type }}
          AND (parent.id IS NOT NULL
               OR NOT EXISTS (SELECT FROM {{ tracks.rows }} AS t
                              WHERE {{ of_track("k", "t") }}))
          AND {{ qualifies("k", "parent.stage" | sql, "todo.arrived" | sql) }}
        FOR UPDATE OF k SKIP LOCKED) AS free),
changed AS (
{% if kind == "delete" %}
    DELETE FROM {{ tasks.rows }} AS k
{% else %}
    UPDATE {{ tasks.rows }} AS k
    SET {{ tasks.status }} = 'pending', {{ tasks.next_retry_at }} = NULL
{%- if attempts != "keep" %}, {{ tasks.attempts }} = {{ attempts_after("k", tasks) }},
        {{ tasks.max_attempts }} = {{ limit_after("k", tasks, step.max_attempts) }}{% endif %}
{%- if action == "requeue" %},
        {{ tasks.completed_at }} = NULL, {{ tasks.processing_duration_ms }} = NULL{% endif +%}
{% endif %}
    WHERE k.{{ tasks.id }} = ANY (ARRAY(SELECT id FROM locked))
    RETURNING k.{{ tasks.id }} AS row_id, k.{{ tasks.id }}::text AS target,
        {{ digest() }} AS digest),
{% endif %}
rest AS (  -- looked for only where not all were changed
    SELECT * FROM todo WHERE (SELECT count(*) FROM changed) < (SELECT count(*) FROM todo)
       AND NOT EXISTS (SELECT FROM changed WHERE changed.target = todo.id)),
left_over AS (  -- and why; what this snapshot still sees qualify was locked by somebody
    SELECT rest.id, rest.arrived, rest.pass, CASE
{% if kind == "insert" %}
               WHEN t.{{ tracks.stage }} = s.stage AND k.{{ tasks.id }} IS NULL AND NOT ({{ is_time("rest.arrived" | sql) }})
                   THEN 'its arrival, ' || rest.arrived || ', is no time that a row should have'
{% endif %}
               WHEN {% if kind == "insert" %}t.{{ tracks.stage }} = s.stage AND k.{{ tasks.id }} IS NULL
               {%- else %}{{ qualifies("k", "t." ~ tracks.stage, "rest.arrived" | sql) }}{% endif %} THEN
                   CASE WHEN rest.pass < {{ turns }} THEN {{ locked | text }}
                        ELSE 'still locked by another session after {{ turns }} turns' END
               WHEN {% if kind == "insert" %}t.{{ tracks.id }}{% else %}k.{{ tasks.id }}{% endif %} IS NULL
                   THEN 'it is gone'
               WHEN {% if kind == "delete" %}NOT {% endif %}(t.{{ tracks.stage }} IS DISTINCT FROM s.stage)
                   THEN 'its track is at ' || coalesce(t.{{ stage_text }}, 'no stage')
               ELSE 'its row is ' || coalesce(k.{{ status_text }}, 'without a status') END AS reason
    FROM rest CROSS JOIN s
{% if kind == "insert" %}
    LEFT JOIN {{ tracks.rows }} AS t ON t.{{ tracks.id }} = rest.id::{{ track_id_type }}
    LEFT JOIN {{ tasks.rows }} AS k ON {{ of_track("k", "t") }}
        AND k.{{ tasks.task_type }} = s.task_type),
{% else %}
    LEFT JOIN {{ tasks.rows }} AS k ON k.{{ tasks.id }} = rest.id::{{ task_id_type }}
    LEFT JOIN {{ tracks.rows }} AS t ON {{ of_track("k", "t") }}{{ now_is("k") }}),
{% endif %}
dropped AS (SELECT id, reason FROM left_over WHERE reason <> {{ locked | text }}),
again AS (  -- locked targets come again, after all others
    INSERT INTO queue_insights.targets (run, chunk, task_type, pass, ids, arrived)
    SELECT :run, (SELECT max(chunk) + 1 FROM queue_insights.targets WHERE run = :run), {{ step.task | text }},
           max(pass) + 1, array_agg(id ORDER BY arrived), array_agg(arrived ORDER BY arrived)
    FROM left_over WHERE reason = {{ locked | text }} HAVING count(*) > 0),
{% include "recorded.sql" %}
