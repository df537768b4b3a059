-- Who keeps us from changing relations (where that shuts readers out, by reading them, too), or has shut everybody
-- out of the tables that we read; a prepared transaction has no pid.
WITH blocker AS (
    SELECT l.relation::regclass::text AS relation,
           CASE WHEN l.pid IS NULL THEN 'a prepared transaction (see pg_prepared_xacts)' ELSE format(
               'pid %s (%s)', l.pid, concat_ws(', ', coalesce(nullif(a.application_name, ''), a.backend_type), a.state,
               'last statement began ' || date_trunc('second', clock_timestamp() - a.query_start) || ' ago')) END AS who
    FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.granted AND l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.relation IN (SELECT to_regclass(name) FROM unnest(CAST(:changed AS text[])) AS name)
           AND (:readers OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
           OR l.relation IN (SELECT to_regclass(name) FROM unnest(CAST(:used AS text[])) AS name)
           AND l.mode IN ('ExclusiveLock', 'AccessExclusiveLock')))
SELECT coalesce(string_agg(DISTINCT relation, ' and '), array_to_string(CAST(:changed AS text[]), ' or '))
       || ' is in use by ' || coalesce(string_agg(DISTINCT who, ', '), 'sessions that come and go')
FROM blocker
