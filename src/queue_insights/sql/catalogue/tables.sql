-- What the catalogue says of tables by schema and name (without a schema: the first in the search_path).
SELECT wanted.number::int AS number, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       (SELECT json_object_agg(a.attname, format_type(a.atttypid, NULL) ORDER BY a.attnum)
        FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT json_agg(a.attname) FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attgenerated <> '') AS generated,
       (SELECT json_agg(a.attname) FROM pg_attribute AS a JOIN pg_type AS y ON y.oid = a.atttypid
        WHERE a.attrelid = c.oid AND y.typtype = 'e') AS enums,
       (SELECT json_agg((SELECT json_agg(a.attname ORDER BY a.attname) FROM pg_attribute AS a
                         WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])))
        FROM pg_index AS i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
          AND i.indpred IS NULL AND i.indexprs IS NULL) AS keys,
       (SELECT json_agg(json_build_array(a.attname, pg_get_constraintdef(k.oid)))
        FROM pg_constraint AS k JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
        WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.convalidated AND cardinality(k.conkey) = 1) AS checks
FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])) WITH ORDINALITY AS wanted (schema, name, number)
JOIN pg_class AS c ON c.relname = wanted.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE CASE WHEN wanted.schema IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = wanted.schema END
ORDER BY number
