-- How many rows the table :table has, by the planner's statistics, and how well they lie in the order of :column.
SELECT c.reltuples::bigint AS rows, (
           SELECT abs(s.correlation) FROM pg_stats AS s
           WHERE to_regnamespace(quote_ident(s.schemaname)) = c.relnamespace AND s.tablename = c.relname
             AND s.attname = :column AND NOT s.inherited) AS ordered
FROM pg_class AS c WHERE c.oid = to_regclass(:table)
