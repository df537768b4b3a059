-- What is amiss with the trigger, a line each, and what to do about it.
WITH found AS (
{% include "triggers.sql" %}),
said (tracks, tasks, name, again) AS (
    SELECT CAST(:tracks AS text), CAST(:tasks AS text), CAST(:function AS text),
           'run `queue-insights trigger install` again'),
function AS (
    SELECT said.*, p.*, quote_ident(pg_get_userbyid(p.proowner)) AS owner,
           right(obj_description(p.oid, 'pg_proc'), length(:label)) IS NOT DISTINCT FROM :label AS is_current
    FROM pg_proc AS p CROSS JOIN said WHERE p.oid = to_regprocedure(:function)),
wanted (name, type, columns, changes) AS (VALUES  -- 5 and 17: AFTER INSERT and AFTER UPDATE, for each row
    (CAST(:on_insert AS text), 5, '{}', false), (CAST(:on_update AS text), 17, CAST(:columns AS text[]), true)),
ours AS (
    SELECT wanted.name AS wanted, found.*, said.again, said.tracks,  -- the texts of its WHEN, as Postgres prints it
           (found.type, found.columns, definition ~ ' IS DISTINCT FROM ', ARRAY(
               SELECT replace(m[1], '''''', '''') COLLATE "C" FROM regexp_matches(
                   split_part(definition, ' WHEN (', 2), '''(([^'']|'''')*)''::', 'g') AS m ORDER BY 1))
           = (wanted.type, wanted.columns, changes, CAST(:stages AS text[])) AS as_installed
    FROM function AS said CROSS JOIN wanted
    LEFT JOIN found ON found.ours AND found.on_tracks AND found.name = wanted.name),
line (number, says) AS (
    SELECT 1, format('there is no trigger of queue-insights on %s: run `queue-insights trigger install`', tracks)
    FROM said WHERE NOT EXISTS (SELECT FROM function)
    UNION ALL
    SELECT 2, format('function %s %s: %s', name, CASE WHEN is_current THEN 'was changed after it was installed'
                     ELSE 'is not what `queue-insights trigger sql` prints now' END, again)
    FROM function WHERE NOT is_current OR (prosrc, prosecdef, proconfig) IS DISTINCT FROM
        (:source, true, ARRAY['search_path=pg_catalog, pg_temp'])
    UNION ALL
    SELECT 3, format('anybody may use %1$s: REVOKE ALL ON FUNCTION %1$s FROM PUBLIC;', name) FROM function
    WHERE EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
    UNION ALL
    SELECT 4, format('%1$s, who owns %2$s, lacks rights on %3$s: GRANT SELECT, INSERT ON %3$s TO %1$s;',
                     owner, name, tasks) FROM function
    WHERE NOT (has_table_privilege(proowner, to_regclass(tasks), 'SELECT')
               AND has_table_privilege(proowner, to_regclass(tasks), 'INSERT'))
    UNION ALL
    SELECT 5, format('trigger %s is on %s, not on %s: %s', found.name, table_name, tracks, drop)
    FROM found CROSS JOIN said WHERE ours AND NOT on_tracks
    UNION ALL
    SELECT 6, format('trigger %s %s: %s', wanted, CASE WHEN name IS NULL THEN 'is missing on ' || tracks
                     ELSE 'is not as it was installed' END, again)
    FROM ours WHERE name IS NULL OR NOT as_installed
    UNION ALL
    SELECT 7, format('trigger %s %s: %s', name, CASE enabled WHEN 'D' THEN 'is disabled'
                     WHEN 'R' THEN 'fires only for replicated changes'
                     ELSE 'fires for replicated changes too, which bring their rows with them' END, enable)
    FROM ours WHERE enabled <> 'O'
    UNION ALL
    SELECT 8, format('trigger %s on %s inserts into %s too: %s', found.name, tracks, tasks, drop)
    FROM found CROSS JOIN said
    WHERE on_tracks AND enabled <> 'D' AND (ours AND found.name NOT IN (SELECT name FROM wanted)
                                            OR NOT ours AND 'insert' = ANY (does))
    UNION ALL
    SELECT 9, format('%s is set to session_replication_role = replica, in which no trigger fires: what it '
                      'changes needs `queue-insights backfill`', coalesce(
                          'role ' || quote_ident(pg_get_userbyid(nullif(setrole, 0))),
                          'database ' || quote_ident(current_database())))
    FROM pg_db_role_setting
    WHERE 'session_replication_role=replica' = ANY (setconfig)
      AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
SELECT says FROM line ORDER BY number, says
