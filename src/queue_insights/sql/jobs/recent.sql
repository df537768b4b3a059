{% for relation in past.relations %}
SELECT FROM {{ relation }} WHERE {{ past.roles.finished_at }} >= :start{% if not loop.last %} UNION ALL
{% endif %}
{% endfor %}
