-- What columns of an answer are: their types, the labels of enums, and whether they may be null.
SELECT format_type(c.type, -1) AS type,  -- with -1 no length is meant, which for char(10) would else be 1
       (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = c.type) AS labels,
       coalesce(a.attnotnull, false) AS never_null
FROM unnest(CAST(:types AS oid[]), CAST(:relations AS oid[]), CAST(:numbers AS int[]))
    WITH ORDINALITY AS c (type, relation, number, n)
LEFT JOIN pg_attribute AS a ON a.attrelid = c.relation AND a.attnum = c.number
ORDER BY c.n
