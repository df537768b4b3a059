-- What the roles give, without a row of it: a broken one is refused. With a parameter, as Postgres then takes no
-- more than one statement.
SELECT {% for role, sql in roles.items() %}{{ sql }}
       AS {{ role | id }}{% if not loop.last %},
       {% endif %}{% endfor %}

FROM {{ relation }}
WHERE CAST(:never AS boolean)
