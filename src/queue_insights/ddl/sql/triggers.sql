-- The triggers on the tables :tracks and :tasks, and wherever else the function :function is used. Of each, by its
-- function's source: whether that (or what it calls) inserts into the task table, or writes to it at all; and,
-- of a BEFORE trigger, which columns it sets in updates that may not name them.
WITH RECURSIVE code AS (  -- in lower case, without comments
    SELECT p.oid, lower(p.proname) AS name,
           lower(regexp_replace(coalesce(nullif(p.prosrc, ''), pg_get_functiondef(p.oid), ''),
                                '(--.*?(\n|$)|/\*.*?\*/){1,1}?', ' ', 'g')) AS source
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
    WHERE l.lanname NOT IN ('c', 'internal')
      AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)),
writer (does, oid, name) AS (
    SELECT way.does, code.oid, code.name
    FROM code JOIN (VALUES ('insert', '(insert|merge)\s+into'),
                           ('write', '((insert|merge)\s+into|update|delete\s+from)')) AS way (does, statement)
        ON source ~ ('\y' || statement || '\s+(only\s+)?(("[^"]+"|[\w$]+)\s*\.\s*)?"?'
                     || regexp_replace(lower({{ tasks.name | text }}), '\W', '\\\&', 'g') || '(?![\w$])')
    UNION SELECT writer.does, code.oid, code.name
    FROM writer JOIN code ON strpos(source, writer.name) > 0  -- which is quick
        AND source ~ ('(?<![\w$])' || regexp_replace(writer.name, '\W', '\\\&', 'g') || '"?\s*\('))
SELECT quote_ident(t.tgname) AS name, t.tgenabled::text AS enabled, t.tgtype AS type,
       t.tgrelid = to_regclass(:tracks) AS on_tracks, t.tgrelid = to_regclass(:tasks) AS on_tasks,
       coalesce(t.tgfoid = to_regprocedure(:function), false) AS ours,
       n.nspname || '.' || c.relname AS table, format('%I.%I', n.nspname, c.relname) AS table_name,
       t.tgfoid::regprocedure::text AS function, pg_get_triggerdef(t.oid) AS definition,
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum = ANY (t.tgattr)) AS columns,
       ARRAY(SELECT does FROM writer WHERE writer.oid = t.tgfoid) AS does,
       ARRAY(SELECT a.attname::text FROM pg_attribute AS a JOIN code ON code.oid = t.tgfoid
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attnum = ANY (t.tgattr)
               AND t.tgtype & 19 = 19 AND t.tgenabled <> 'D'  -- before an update, for each row
               AND source ~ ('(;|\ybegin|\ythen|\yelse|\yloop)\s*new\s*\.\s*"?'
                             || regexp_replace(lower(a.attname), '\W', '\\\&', 'g') || '"?\s*:?=')) AS sets,
       format('DROP TRIGGER %I ON %I.%I;', t.tgname, n.nspname, c.relname) AS drop,
       format('ALTER TABLE %I.%I ENABLE TRIGGER %I;', n.nspname, c.relname, t.tgname) AS enable
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgparentid = 0
  AND (t.tgrelid IN (to_regclass(:tracks), to_regclass(:tasks)) OR t.tgfoid = to_regprocedure(:function))
ORDER BY on_tracks DESC, t.tgname
