-- Whether the view says something else than its query in the same moment.
WITH theirs AS (SELECT {{ compared }}, count(*) FROM {{ view }} AS v GROUP BY 1),
ours AS (SELECT {{ compared }}, count(*) FROM (
{{ query }}) AS v GROUP BY 1)
SELECT EXISTS (TABLE theirs EXCEPT TABLE ours) OR EXISTS (TABLE ours EXCEPT TABLE theirs)
