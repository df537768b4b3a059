{% set history = true %}
{% include "standing.sql" %},
step AS (
    SELECT DISTINCT position, NULL::text AS stage, position AS task_type
    FROM (SELECT position FROM standing UNION ALL SELECT position FROM done_since UNION ALL SELECT position FROM left_since) AS seen)
