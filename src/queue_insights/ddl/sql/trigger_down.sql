DROP TRIGGER IF EXISTS {{ on_insert }} ON {{ table }};
DROP TRIGGER IF EXISTS {{ on_update }} ON {{ table }};
DROP FUNCTION IF EXISTS {{ function }};
