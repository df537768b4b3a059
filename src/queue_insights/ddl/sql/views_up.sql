DO $$ BEGIN
    IF to_regnamespace('queue_insights') IS NULL THEN
        CREATE SCHEMA queue_insights;
        COMMENT ON SCHEMA queue_insights IS 'made for the views of queue-insights';
    END IF;
END $$;
