-- The views that are there, how each is labelled, and the statements that grant again what is granted on it.
SELECT c.relname::text AS name, obj_description(c.oid, 'pg_class') AS comment,
       ARRAY(SELECT format('GRANT %s ON queue_insights.%I TO %s%s;', a.privilege_type, c.relname,
                           CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                           CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
             FROM aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner) AS grants
FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace('queue_insights') AND c.relkind = 'v'
  AND c.relname IN ('backlog', 'audit', 'pending_tasks')
