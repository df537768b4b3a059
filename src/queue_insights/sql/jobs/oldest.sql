SELECT min(at) FROM (
{% for relation in past.relations %}
    SELECT min({{ past.time("finished_at") }}) AS at FROM {{ relation }} WHERE {{ past.is_("completed") }}
{%- if not loop.last %} UNION ALL{% endif %}

{% endfor %}) AS oldest
