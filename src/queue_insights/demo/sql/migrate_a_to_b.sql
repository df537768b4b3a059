-- The application's later migrations in one: variant A becomes variant B ("by subject"), where
-- audio_tasks also holds the tasks of TikTok videos. Runs in one transaction, on tables with or
-- without rows. As in the field, a trigger on tracks that inserts rows the old way breaks by it.

ALTER TABLE tracks
    ADD COLUMN source_type text DEFAULT 'tiktok',
    ADD COLUMN metadata jsonb,
    DROP CONSTRAINT tracks_stage_check,
    ADD CONSTRAINT tracks_stage_check CHECK (stage IN (
        'pending', 'enriched', 'lyrics_acquired', 'audio_ready', 'aligned', 'translated',
        'translation_quiz_ready', 'trivia_ready', 'separated', 'segmented', 'enhanced', 'ready',
        'pkp_minted', 'lens_created', 'grc20_ready', 'grc20_submitted', 'encrypted',
        'unlock_deployed', 'published', 'failed'));

-- What was filled in for every row here is no change of the row: updated_at keeps its meaning.
ALTER TABLE audio_tasks DISABLE TRIGGER audio_tasks_set_updated_at;
ALTER TABLE audio_tasks
    ADD COLUMN subject_type text NOT NULL DEFAULT 'track',
    ADD COLUMN subject_id text;
UPDATE audio_tasks SET subject_id = spotify_track_id;
ALTER TABLE audio_tasks ENABLE TRIGGER audio_tasks_set_updated_at;

ALTER TABLE audio_tasks
    ALTER COLUMN subject_id SET NOT NULL,
    ALTER COLUMN spotify_track_id DROP NOT NULL,
    DROP CONSTRAINT audio_tasks_task_type_check,
    DROP CONSTRAINT audio_tasks_status_check,
    DROP CONSTRAINT audio_tasks_spotify_track_id_task_type_key,
    ADD CONSTRAINT audio_tasks_task_type_check CHECK (task_type IN (
        'download', 'align', 'translate', 'translation_quiz', 'trivia', 'separate', 'segment',
        'enhance', 'clip', 'encrypt',
        'video_download', 'video_transcribe', 'video_translate', 'video_encrypt')),
    ADD CONSTRAINT audio_tasks_status_check CHECK (status IN (
        'pending', 'running', 'completed', 'failed', 'skipped')),
    ADD CONSTRAINT audio_tasks_subject_type_check CHECK (subject_type IN ('track', 'tiktok_video')),
    ADD CONSTRAINT audio_tasks_subject_check CHECK (
        (subject_type = 'track' AND spotify_track_id IS NOT NULL AND subject_id = spotify_track_id)
        OR (subject_type = 'tiktok_video' AND spotify_track_id IS NULL)),
    ADD CONSTRAINT audio_tasks_subject_task_key UNIQUE (subject_type, subject_id, task_type);

-- Still per track: a video has no place in it.
CREATE OR REPLACE VIEW audio_progress AS
SELECT spotify_track_id,
       count(*) AS total_tasks,
       count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       count(*) FILTER (WHERE status = 'pending') AS pending,
       bool_and(status IN ('completed', 'skipped')) AS all_complete,
       max(updated_at) AS last_updated
FROM audio_tasks
WHERE subject_type = 'track'
GROUP BY spotify_track_id;

CREATE OR REPLACE VIEW task_summary AS
SELECT CASE subject_type WHEN 'track' THEN 'audio' ELSE 'video' END AS category,
       task_type,
       status,
       count(*) AS count,
       avg(attempts) AS avg_attempts,
       min(last_attempt_at) AS oldest_attempt,
       max(last_attempt_at) AS newest_attempt
FROM audio_tasks
GROUP BY subject_type, task_type, status;
