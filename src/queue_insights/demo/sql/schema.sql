-- Variant A ("by track") of the tables that the toolkit reads, as the application's own migrations
-- would leave them. Names are unqualified: they go to the first schema of the search_path.

CREATE TABLE tracks (
    spotify_track_id    text PRIMARY KEY,
    tiktok_video_id     text UNIQUE,
    title               text NOT NULL,
    artists             jsonb NOT NULL,  -- [{"id": ..., "name": ...}, ...]
    album_name          text,
    release_date        date,
    duration_ms         integer,
    isrc                text,
    primary_artist_id   text,
    primary_artist_name text,
    stage               text NOT NULL DEFAULT 'pending',
    has_iswc            boolean DEFAULT false,
    has_lyrics          boolean DEFAULT false,
    has_audio           boolean DEFAULT false,
    error_message       text,
    error_at            timestamptz,
    created_at          timestamptz DEFAULT now(),
    updated_at          timestamptz DEFAULT now(),
    CONSTRAINT tracks_stage_check CHECK (stage IN (
        'pending', 'enriched', 'lyrics_acquired', 'audio_ready', 'aligned', 'translated',
        'separated', 'segmented', 'enhanced', 'ready', 'failed'))
);

CREATE TABLE audio_tasks (
    id                     serial PRIMARY KEY,
    spotify_track_id       text NOT NULL
        CONSTRAINT audio_tasks_spotify_track_id_fkey
        REFERENCES tracks (spotify_track_id) ON DELETE CASCADE,
    task_type              text,
    status                 text DEFAULT 'pending',
    grove_cid              text,
    grove_url              text,
    metadata               jsonb,
    attempts               integer DEFAULT 0,
    max_attempts           integer DEFAULT 3,
    last_attempt_at        timestamptz,
    next_retry_at          timestamptz,
    error_message          text,
    error_details          jsonb,
    processing_duration_ms integer,
    created_at             timestamptz DEFAULT now(),
    updated_at             timestamptz DEFAULT now(),
    completed_at           timestamptz,
    CONSTRAINT audio_tasks_task_type_check CHECK (task_type IN (
        'download', 'align', 'translate', 'separate', 'segment', 'enhance', 'clip')),
    CONSTRAINT audio_tasks_status_check CHECK (status IN (
        'pending', 'running', 'completed', 'failed')),
    CONSTRAINT audio_tasks_spotify_track_id_task_type_key UNIQUE (spotify_track_id, task_type)
);

CREATE INDEX tracks_stage_idx ON tracks (stage) WHERE stage NOT IN ('ready', 'failed');
CREATE INDEX audio_tasks_task_type_status_idx ON audio_tasks (task_type, status)
    WHERE status IN ('pending', 'failed');
CREATE INDEX audio_tasks_spotify_track_id_idx ON audio_tasks (spotify_track_id);

CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER tracks_set_updated_at BEFORE UPDATE ON tracks
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER audio_tasks_set_updated_at BEFORE UPDATE ON audio_tasks
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- What the dashboards read. Both count rows, so neither can see work that has none.
CREATE VIEW audio_progress AS
SELECT spotify_track_id,
       count(*) AS total_tasks,
       count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       count(*) FILTER (WHERE status = 'pending') AS pending,
       bool_and(status = 'completed') AS all_complete,
       max(updated_at) AS last_updated
FROM audio_tasks
GROUP BY spotify_track_id;

CREATE VIEW task_summary AS
SELECT 'audio'::text AS category,
       task_type,
       status,
       count(*) AS count,
       avg(attempts) AS avg_attempts,
       min(last_attempt_at) AS oldest_attempt,
       max(last_attempt_at) AS newest_attempt
FROM audio_tasks
GROUP BY task_type, status;
