-- The indexes of the table :table. One that is being built, or whose building failed, is not valid: the planner
-- leaves it out.
SELECT i.indexrelid::regclass::text AS name, m.amname AS method, i.indisvalid AS valid,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AS is_key,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
             WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
WHERE i.indrelid = to_regclass(:table)
ORDER BY c.relname
