-- Tables and views of these names, wherever they are.
SELECT n.nspname AS schema, c.relname AS name, pg_table_is_visible(c.oid) AS visible
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = ANY (CAST(:tables AS text[])) AND c.relkind IN ('r', 'p', 'v') ORDER BY 1, 2
