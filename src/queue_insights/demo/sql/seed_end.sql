-- The constraint that seed_begin.sql took away, the next id, and what was seeded: said on the table
-- itself, so that it cannot outlive it.
ALTER TABLE audio_tasks ADD CONSTRAINT audio_tasks_spotify_track_id_fkey
    FOREIGN KEY (spotify_track_id) REFERENCES tracks ON DELETE CASCADE;
SELECT setval(pg_get_serial_sequence('audio_tasks', 'id'), max(id)) FROM audio_tasks;
DO $$ BEGIN
    EXECUTE format('COMMENT ON TABLE tracks IS %L', 'queue-insights demo '
        || (SELECT to_jsonb(seed_parameters)::text FROM seed_parameters));
END $$;
