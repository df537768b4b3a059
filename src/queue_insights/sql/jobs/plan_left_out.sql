{% from "actions.sql" import takes, and_filters with context %}
{% include "standing.sql" %}

SELECT asked.id AS {{ id_column }},
       CASE WHEN k.id IS NULL THEN 'there is no such job, or it is completed'
            ELSE format('%s is %s', k.task_type, k.state) END AS reason
FROM unnest(CAST(:ids AS text[])) WITH ORDINALITY AS asked (id, n)
LEFT JOIN standing AS k ON k.track_id::text = asked.id
WHERE (k.position IN (SELECT position FROM step) AND {{ takes("k", named, "k.state" | sql) }}
       {{- and_filters("k", named, "k.arrived_at" | sql) }}) IS NOT TRUE
ORDER BY asked.n
