-- Types by their numbers, and the labels of those that are enums.
SELECT t.oid, format_type(t.oid, NULL) AS type,
       (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) AS labels
FROM pg_type AS t WHERE t.oid = ANY (CAST(:oids AS oid[]))
