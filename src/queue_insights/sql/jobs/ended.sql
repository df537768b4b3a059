done_since AS (  -- completed
{% for relation in past.relations %}
    SELECT {{ past.kind }} AS position, {{ past.roles.id }} AS track_id, least({{ past.arrived_at }}, now()) AS arrived_at,
           {% if "started_at" in past.roles %}{{ past.time("started_at") }}{% else %}NULL::timestamptz{% endif %} AS started_at,
           least({{ past.time("finished_at") }}, now()) AS completed_at
    FROM {{ relation }}
    WHERE {{ past.roles.finished_at }} >= :start AND {{ past.is_("completed") }}
{% if not loop.last %}

    UNION ALL
{% endif %}
{% endfor %}),
left_since AS (  -- ended otherwise
{% for relation in past.relations %}
    SELECT {{ past.kind }} AS position, {{ past.roles.id }} AS track_id, least({{ past.arrived_at }}, {{ past.ended_at }}, now()) AS arrived_at,
           {{ past.time("started_at") }} AS started_at, least({{ past.ended_at }}, now()) AS ended_at,
           {{ past.is_("exhausted") }} AS exhausted
    FROM {{ relation }}
    WHERE {{ past.ended_at }} >= :start AND {{ past.is_("exhausted", "skipped") }}
{% if not loop.last %}

    UNION ALL
{% endif %}
{% endfor %})
