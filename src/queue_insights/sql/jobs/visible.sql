rows_of AS (SELECT position, count(*) AS visible FROM standing WHERE said = 'pending' GROUP BY position)
