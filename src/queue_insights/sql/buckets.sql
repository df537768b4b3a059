edges (at) AS MATERIALIZED (
    SELECT {% if regular %}array(SELECT generate_series(:start, :stop,
                                        :bucket)){% else %}:edges{% endif %}),
bucket (number, begins) AS NOT MATERIALIZED (
    SELECT number::int, begins FROM unnest((SELECT at FROM edges)) WITH ORDINALITY AS edge (begins, number)
    WHERE begins < :stop)
