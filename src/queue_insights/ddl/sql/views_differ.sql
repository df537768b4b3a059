-- Whether the view says something else than its query in the same moment; of a long list, only how many and what.
WITH theirs AS (TABLE {{ view }}), ours AS (
{{ query }}),
{% if long %}
a AS (SELECT task_type, state, count(*) FROM theirs GROUP BY 1, 2),
b AS (SELECT task_type, state, count(*) FROM ours GROUP BY 1, 2)
{% else %}
a AS (SELECT to_jsonb(theirs) FROM theirs), b AS (SELECT to_jsonb(ours) FROM ours)
{% endif %}
SELECT EXISTS (TABLE a EXCEPT ALL TABLE b) OR EXISTS (TABLE b EXCEPT ALL TABLE a)
