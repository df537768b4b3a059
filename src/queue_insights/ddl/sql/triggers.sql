-- The triggers on the tracks, and wherever else our function is used. Of each, by its function's source: whether that
-- (or what it calls) inserts into the task table, and whether it sets the stage before updates that do not name it.
WITH RECURSIVE code AS (  -- in lower case, without comments
    SELECT p.oid, lower(p.proname) AS name,
           lower(regexp_replace(coalesce(nullif(p.prosrc, ''), pg_get_functiondef(p.oid), ''),
                                '(--.*?(\n|$)|/\*.*?\*/){1,1}?', ' ', 'g')) AS source
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
    WHERE l.lanname NOT IN ('c', 'internal')
      AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)),
inserter AS (
    SELECT oid, name FROM code
    WHERE source ~ ('\y(insert|merge)\s+into\s+(only\s+)?(("[^"]+"|[\w$]+)\s*\.\s*)?"?'
                    || regexp_replace(lower({{ tasks.name | text }}), '\W', '\\\&', 'g') || '(?![\w$])')
    UNION SELECT code.oid, code.name
    FROM inserter JOIN code ON strpos(source, inserter.name) > 0  -- which is quick
        AND source ~ ('(?<![\w$])' || regexp_replace(inserter.name, '\W', '\\\&', 'g') || '"?\s*\('))
SELECT quote_ident(t.tgname) AS name, format('%I.%I', n.nspname, c.relname) AS table_name, t.tgtype AS type,
       t.tgenabled::text AS enabled, t.tgfoid::regprocedure::text AS function, pg_get_triggerdef(t.oid) AS definition,
       t.tgrelid = to_regclass(:tracks) AS on_tracks, coalesce(t.tgfoid = to_regprocedure(:function), false) AS ours,
       named.columns, EXISTS (SELECT FROM inserter WHERE inserter.oid = t.tgfoid) AS inserts,
       t.tgtype & 19 = 19 AND t.tgenabled <> 'D'  -- before an update, for each row
           AND NOT {{ tracks.roles.stage | text }} = ANY (named.columns) AND EXISTS (
           SELECT FROM code WHERE code.oid = t.tgfoid AND source ~ (
               '(;|\ybegin|\ythen|\yelse|\yloop)\s*new\s*\.\s*"?'
               || regexp_replace(lower({{ tracks.roles.stage | text }}), '\W', '\\\&', 'g') || '"?\s*:?=')
           ) AS sets_stage,
       format('DROP TRIGGER %I ON %I.%I;', t.tgname, n.nspname, c.relname) AS drop,
       format('ALTER TABLE %I.%I ENABLE TRIGGER %I;', n.nspname, c.relname, t.tgname) AS enable
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid
                                 AND attnum = ANY (t.tgattr))) AS named (columns)
WHERE NOT t.tgisinternal AND t.tgparentid = 0
  AND (t.tgrelid = to_regclass(:tracks) OR t.tgfoid = to_regprocedure(:function))
ORDER BY on_tracks DESC, t.tgname
