{% set all %}
{% if regular %}array(SELECT generate_series(:start, :stop,
                                 :bucket)){% else %}:edges{% endif %}
{% endset %}
edges (at) AS MATERIALIZED (
    SELECT {{ all }}),
bucket (number, begins) AS NOT MATERIALIZED (
    SELECT number::int, begins FROM unnest((SELECT at FROM edges)) WITH ORDINALITY AS edge (begins, number)
    WHERE begins < :stop)
