-- The ledger may live there, too, or the schema have been there before.
DO $$ BEGIN
    IF obj_description(to_regnamespace('queue_insights'), 'pg_namespace') = 'made for the views of queue-insights' THEN
        DROP SCHEMA queue_insights;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
END $$;
