-- One batch of a retry by the queue's own rule, which says what was retried: whatever else was chosen was not to be
-- retried any more.
WITH {% include "todo.sql" %},
retried (id) AS (
    {{ retry }}),
changed AS (SELECT id AS row_id, 0::bigint AS digest FROM retried),
dropped AS (
    SELECT id, 'it is exhausted no more' AS reason FROM todo
    WHERE NOT EXISTS (SELECT FROM changed WHERE changed.row_id::text = todo.id)),
{% include "recorded.sql" %}
