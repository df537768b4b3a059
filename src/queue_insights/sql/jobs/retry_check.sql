-- What retries is looked at, not run.
EXPLAIN WITH chosen_job (id) AS (SELECT NULL::text WHERE false),
changed AS (
    {{ retry }}
)
SELECT * FROM changed
