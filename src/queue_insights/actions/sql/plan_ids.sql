{% include "selection.sql" %}

SELECT id::text FROM taken
