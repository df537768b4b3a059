-- To check all foreign keys at once, at the end, takes half the time of one by one.
ALTER TABLE audio_tasks DROP CONSTRAINT audio_tasks_spotify_track_id_fkey;
