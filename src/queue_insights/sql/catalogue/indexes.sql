{% set roles = tasks.roles %}
-- The indexes that the reads need: the statement that makes one, unless there is one by which the rows are found in
-- which the last column has one of the listed values. And two that are worth it only where history is long.
WITH wanted (purpose, relation, columns, listed) AS (VALUES
    ('for the tracks at a step', CAST(:tracks AS text), ARRAY[{{ tracks.roles.stage | text }}],
     ARRAY[{{ stages | map("text") | wrapped(11) }}]),
    ('for pending and failed rows', :tasks, ARRAY[{{ roles.task_type | text }}, {{ roles.status | text }}],
     ARRAY['pending', 'failed'])),
present AS (  -- one that is being built, or whose building failed, is not valid: the planner leaves it out
    SELECT i.indrelid, i.indexrelid::regclass::text AS name, i.indisvalid, m.amname, a.attname::text AS first,
           predicate, regexp_replace(predicate, '''([^'']|'''')*''', '', 'g') AS rest
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    CROSS JOIN LATERAL pg_get_expr(i.indpred, i.indrelid) AS predicate
    WHERE i.indrelid IN (to_regclass(:tracks), to_regclass(:tasks))),
found AS (
    SELECT purpose, relation, columns, listed, min(name) FILTER (WHERE NOT indisvalid) AS broken,
           string_agg(name, ', ' ORDER BY name) FILTER (WHERE indisvalid) AS serving
    FROM wanted JOIN pg_class AS c ON c.oid = to_regclass(relation) AND c.relkind = 'r'
    LEFT JOIN present ON indrelid = c.oid AND first = columns[1] AND amname IN ('btree', 'hash')
        AND (predicate IS NULL  -- or a list of values, or of others; whatever else it may be is not understood
             OR strpos(rest, quote_ident(columns[cardinality(columns)])) > 0
             AND regexp_replace(rest, '"([^"]|"")*"', '', 'g') !~ '\y(AND|OR|NOT|IS)\y|\w\('
             AND (SELECT bool_and((strpos(predicate, format('''%s''', replace(value, '''', ''''''))) > 0)
                                  <> (strpos(rest, '<>') > 0))
                  FROM unnest(listed) AS value))
    GROUP BY purpose, relation, columns, listed),
history AS (
    SELECT c.oid, to_char(c.reltuples, 'FM999,999,999,999') AS rows, a.attname::text AS completed, (
               SELECT abs(s.correlation) FROM pg_stats AS s JOIN pg_namespace AS n ON n.nspname = s.schemaname
               WHERE n.oid = c.relnamespace AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited
           ) AS ordered  -- how well the rows lie in the order of time
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = {{ roles.completed_at | text }}
    WHERE c.oid = to_regclass(:tasks) AND c.relkind = 'r' AND c.reltuples >= :long),
advice AS (
    SELECT format('USING brin (%1$I) WITH (pages_per_range = 32) WHERE %1$I IS NOT NULL', completed) AS index, rows
    FROM history WHERE ordered >= 0.9
      AND NOT EXISTS (SELECT FROM present WHERE indisvalid AND indrelid = oid AND first = completed)
    UNION ALL SELECT format('(%I) WHERE %I IS NULL', {{ roles.task_type | text }}, completed), rows FROM history
    WHERE NOT EXISTS (SELECT FROM present WHERE indisvalid AND indrelid = oid
                                            AND predicate = format('(%I IS NULL)', completed)))
SELECT CASE WHEN serving IS NULL THEN 'fix' ELSE 'ok' END AS level,
       format('indexes: %s (%s) %s: %s', relation, key, purpose, CASE
           WHEN serving IS NOT NULL THEN serving
           WHEN broken IS NOT NULL THEN format('%s is not valid: REINDEX INDEX CONCURRENTLY %1$s;', broken)
           ELSE format('none: CREATE INDEX CONCURRENTLY ON %s (%s) WHERE %I IN (%s);', relation, key,
                       columns[cardinality(columns)], quoted) END) AS text
FROM found CROSS JOIN LATERAL (SELECT string_agg(quote_ident(name), ', ') AS key FROM unnest(columns) AS name) AS k
CROSS JOIN LATERAL (SELECT string_agg(quote_literal(value), ', ') AS quoted FROM unnest(listed) AS value) AS v
UNION ALL
SELECT 'note', format('indexes: history is long (%s rows), and its reads would be faster by '
                      'CREATE INDEX CONCURRENTLY ON %s %s;', rows, CAST(:tasks AS text), index) FROM advice
