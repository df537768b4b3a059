-- What new task rows take their numbers from: by a column's default, and what is behind an identity.
SELECT format('%I.%I', n.nspname, s.relname) AS name
FROM pg_class AS s JOIN pg_namespace AS n ON n.oid = s.relnamespace
WHERE s.relkind = 'S' AND s.oid IN (
    SELECT d.refobjid FROM pg_attrdef AS a
    JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
    WHERE a.adrelid = to_regclass(:tasks)
    UNION ALL SELECT to_regclass(pg_get_serial_sequence(:tasks, {{ tasks.roles.id | text }})))
