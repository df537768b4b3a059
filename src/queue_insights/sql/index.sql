CREATE {% if not values %}UNIQUE {% endif %}INDEX CONCURRENTLY ON {{ table }} ({{ columns | join(", ") }})
{%- if values %} WHERE {{ columns[-1] }} IN ({{ values | map("text") | join(", ") }}){% endif %};
