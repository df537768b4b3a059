-- What the catalogue says of tables by schema and name (without a schema: the first in the search_path).
SELECT wanted.number::int AS number, n.nspname AS schema, c.relname AS name,
       c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid) AS inherited,
       (SELECT coalesce(json_object_agg(a.attname, json_build_object(
                   'type', format_type(a.atttypid, NULL), 'exact', format_type(a.atttypid, a.atttypmod),
                   'base', format_type(base.oid, NULL), 'generated', a.attgenerated <> '', 'labels',
                   (SELECT json_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = base.oid)
               ) ORDER BY a.attnum), '{}')
        FROM pg_attribute AS a CROSS JOIN LATERAL (  -- what a domain is of
            WITH RECURSIVE type AS (
                SELECT y.oid, y.typtype, y.typbasetype FROM pg_type AS y WHERE y.oid = a.atttypid
                UNION ALL SELECT y.oid, y.typtype, y.typbasetype FROM type JOIN pg_type AS y ON y.oid = type.typbasetype)
            SELECT oid FROM type WHERE typtype <> 'd') AS base
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT coalesce(json_agg(json_build_object(
                   'columns', (SELECT json_agg(a.attname ORDER BY a.attname) FROM pg_attribute AS a
                               WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])),
                   'fault', CASE WHEN NOT i.indisvalid
                                     THEN format('%s is not valid: REINDEX INDEX CONCURRENTLY %1$s;', i.indexrelid::regclass)
                                 WHEN NOT i.indimmediate THEN i.indexrelid::regclass || ' is deferrable'
                                 WHEN i.indpred IS NOT NULL THEN i.indexrelid::regclass || ' covers some rows only' END)), '[]')
        FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique AND i.indexprs IS NULL) AS keys,
       (SELECT coalesce(json_agg(json_build_array(a.attname, pg_get_constraintdef(k.oid))), '[]')
        FROM pg_constraint AS k JOIN pg_attribute AS a
            ON a.attrelid = c.oid AND (k.conrelid = c.oid AND a.attnum = k.conkey[1] AND cardinality(k.conkey) = 1
                                       OR k.contypid = a.atttypid AND k.contypid <> 0)
        WHERE k.contype = 'c' AND k.convalidated) AS checks
FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])) WITH ORDINALITY AS wanted (schema, name, number)
JOIN pg_class AS c ON c.relname = wanted.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE CASE WHEN wanted.schema IS NOT NULL THEN n.nspname = wanted.schema
           ELSE pg_table_is_visible(c.oid) OR current_schema() IS NULL AND n.nspname = 'public' END
ORDER BY number
