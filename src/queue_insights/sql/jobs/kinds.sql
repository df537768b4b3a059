-- The kinds of job that there are{% if not every %}, completed ones apart{% endif %}.
{% set of = past if every else jobs %}
{% for relation in of.relations %}
SELECT {{ of.kind }} AS task_type FROM {{ relation }}{% if not every %} WHERE {{ jobs.open }}{% endif +%}
{%- if not loop.last %} UNION{% else %} GROUP BY 1{% endif %}

{% endfor %}
ORDER BY task_type
