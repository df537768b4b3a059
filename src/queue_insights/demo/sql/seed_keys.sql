-- Indexes and keys are built after the rows, which is several times faster than row by row. They
-- come back under the same names from their own definitions, whatever the variant.
CREATE TEMP TABLE seed_keys ON COMMIT DROP AS
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS removal,
       format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname,
              pg_get_constraintdef(oid)) AS creation,
       CASE contype WHEN 'f' THEN 3 ELSE 1 END AS turn
FROM pg_constraint
WHERE conrelid IN ('tracks'::regclass, 'audio_tasks'::regclass) AND contype IN ('p', 'u', 'f')
UNION ALL
SELECT format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid), 2
FROM pg_index
WHERE indrelid IN ('tracks'::regclass, 'audio_tasks'::regclass)
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid);

CREATE OR REPLACE FUNCTION pg_temp.restore_keys() RETURNS void LANGUAGE plpgsql AS $$
DECLARE command text;
BEGIN
    FOR command IN SELECT creation FROM seed_keys ORDER BY turn, creation LOOP
        EXECUTE command;
    END LOOP;
END $$;

DO $$
DECLARE command text;
BEGIN
    FOR command IN SELECT removal FROM seed_keys ORDER BY turn DESC LOOP EXECUTE command; END LOOP;
END $$;
