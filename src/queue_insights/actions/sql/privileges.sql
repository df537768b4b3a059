-- The privileges that this role lacks, by what they are on, as GRANT names both.
{% set every = "'SELECT', 'INSERT', 'UPDATE', 'DELETE'" | sql %}
{% set on_tasks = {"read": "'SELECT'" | sql, "update": "'SELECT', 'UPDATE'" | sql}[kind] | default(every) %}
WITH ledger AS (  -- from the catalogue: to_regclass would fail for a role that may not look into the schema
    SELECT c.oid, c.relname, n.oid AS home,
           array_position(ARRAY['runs', 'targets', 'batches'], c.relname::text) AS number
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'queue_insights' AND c.relname IN ('runs', 'targets', 'batches')),
needed (number, relation, privilege, granted) AS (
{% if kind == "vendor" %}
    SELECT 1, '', '', true
{% else %}
    SELECT 1, CAST(:tracks AS text), 'SELECT', has_table_privilege(:tracks, 'SELECT')
    UNION ALL SELECT 2, :tasks, privilege, has_table_privilege(:tasks, privilege)
    FROM unnest(ARRAY[{{ on_tasks }}]) AS privilege
{% endif %}
{% if kind == "insert" %}
    UNION ALL SELECT 3, 'SEQUENCE ' || name, 'USAGE', has_sequence_privilege(name, 'USAGE') FROM (
{% include "sequences.sql" %}) AS sequence
{% endif %}
{% if kind not in ("read", "vendor") %}
    UNION ALL  -- to lock a track takes UPDATE on any one of its columns
    SELECT 1, :tracks, format('UPDATE (%I)', {{ tracks.roles.updated_at | text }}),
           has_any_column_privilege(:tracks, 'UPDATE')
{% endif %}
{% if kind != "read" %}
    UNION ALL
    SELECT 4, format('DATABASE %I', current_database()), 'CREATE', has_database_privilege(current_database(), 'CREATE')
    WHERE NOT EXISTS (SELECT FROM ledger)
    UNION ALL
    SELECT DISTINCT 5, 'SCHEMA queue_insights', 'USAGE', has_schema_privilege(home, 'USAGE') FROM ledger
    UNION ALL
    SELECT 5 + number, 'queue_insights.' || relname, privilege, has_table_privilege(oid, privilege)
    FROM ledger CROSS JOIN unnest(ARRAY[{{ every }}]) AS privilege
{% endif %})
SELECT relation, array_agg(privilege ORDER BY array_position(ARRAY[{{ every }}], privilege)) AS privileges
FROM needed WHERE NOT granted GROUP BY number, relation ORDER BY number
