-- What is amiss with the trigger, a line each, and what to do about it.
WITH found AS (
{% include "triggers.sql" %}),
given (tracks, tasks, name, again) AS (
    SELECT CAST(:tracks AS text), CAST(:tasks AS text), CAST(:function AS text),
           'run `queue-insights trigger install` again'),
function AS (
    SELECT given.*, p.*,
           right(obj_description(p.oid, 'pg_proc'), length(:label)) IS NOT DISTINCT FROM :label AS is_current
    FROM pg_proc AS p CROSS JOIN given WHERE p.oid = to_regprocedure(:function)),
wanted (name, type, columns, changes) AS (VALUES  -- 5 and 17: AFTER INSERT and AFTER UPDATE, for each row
    (CAST(:on_insert AS text), 5, '{}', false), (CAST(:on_update AS text), 17, CAST(:columns AS text[]), true)),
ours AS (
    SELECT wanted.name AS wanted, found.*,  -- the texts of its WHEN, as Postgres prints it
           (found.type, found.columns, definition ~ ' IS DISTINCT FROM ', ARRAY(
               SELECT replace(m[1], '''''', '''') COLLATE "C" FROM regexp_matches(
                   split_part(definition, ' WHEN (', 2), '''(([^'']|'''')*)''::', 'g') AS m ORDER BY 1))
           = (wanted.type, wanted.columns, changes, CAST(:stages AS text[])) AS as_installed
    FROM wanted LEFT JOIN found ON found.ours AND found.on_tracks AND found.name = wanted.name),
line (number, says, mends) AS (
    SELECT 1, 'there is no trigger of queue-insights on ' || tracks, 'run `queue-insights trigger install`'
    FROM given WHERE NOT EXISTS (SELECT FROM function)
    UNION ALL
    SELECT 2, format('function %s %s', name, CASE WHEN is_current THEN 'was changed after it was installed'
                     ELSE 'is not what `queue-insights trigger sql` prints now' END), again
    FROM function WHERE NOT is_current OR EXISTS (  -- nobody else may use it
              SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
          OR (strpos(:sql, prosrc) > 0, prosecdef, proconfig) IS DISTINCT FROM
             (true, true, ARRAY['search_path=pg_catalog, pg_temp'])
    UNION ALL
    SELECT 3, format('trigger %s is on %s, not on %s', found.name, table_name, tracks), drop
    FROM found CROSS JOIN given WHERE ours AND NOT on_tracks
    UNION ALL
    SELECT 4, format('trigger %s is %s', wanted, CASE WHEN ours.name IS NULL THEN 'missing on ' || tracks
                     ELSE 'not as it was installed' END), again
    FROM ours CROSS JOIN function WHERE as_installed IS NOT TRUE
    UNION ALL
    SELECT 5, format('trigger %s %s', name, CASE enabled WHEN 'D' THEN 'is disabled' WHEN 'R' THEN 'fires only for '
                     'replicated changes' ELSE 'fires for replicated changes too' END), enable
    FROM ours WHERE enabled <> 'O'
    UNION ALL
    SELECT 6, format('trigger %s on %s inserts into %s too', found.name, tracks, tasks), drop
    FROM found CROSS JOIN given
    WHERE on_tracks AND enabled <> 'D' AND inserts AND found.name NOT IN (SELECT wanted FROM ours WHERE ours.ours)
    UNION ALL
    SELECT 7, format('for %s session_replication_role = replica is set, in which no trigger fires', coalesce(
                  'role ' || quote_ident(pg_get_userbyid(nullif(setrole, 0))),
                  'database ' || quote_ident(current_database()))), 'what that changes needs `queue-insights backfill`'
    FROM pg_db_role_setting WHERE 'session_replication_role=replica' = ANY (setconfig)
      AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
SELECT says || ': ' || mends FROM line ORDER BY number, says
