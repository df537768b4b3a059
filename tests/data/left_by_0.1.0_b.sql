-- A database of variant B as version 0.1.0 left it: run 1 finished, run 2 cut off, trigger and views installed.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA queue_insights;
CREATE FUNCTION public.queue_insights_tracks_to_audio_tasks() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF NEW.stage = 'lyrics_acquired' THEN
        INSERT INTO public.audio_tasks
            (subject_type, subject_id, spotify_track_id, task_type, status, attempts, max_attempts, created_at)
        VALUES ('track', NEW.spotify_track_id, NEW.spotify_track_id, 'download', 'pending', 0, 3, now())
        ON CONFLICT (subject_type, subject_id, task_type) DO NOTHING;
    ELSIF NEW.stage = 'audio_ready' THEN
        INSERT INTO public.audio_tasks
            (subject_type, subject_id, spotify_track_id, task_type, status, attempts, max_attempts, created_at)
        VALUES ('track', NEW.spotify_track_id, NEW.spotify_track_id, 'align', 'pending', 0, 3, now())
        ON CONFLICT (subject_type, subject_id, task_type) DO NOTHING;
    ELSIF NEW.stage = 'aligned' THEN
        INSERT INTO public.audio_tasks
            (subject_type, subject_id, spotify_track_id, task_type, status, attempts, max_attempts, created_at)
        VALUES ('track', NEW.spotify_track_id, NEW.spotify_track_id, 'translate', 'pending', 0, 3, now())
        ON CONFLICT (subject_type, subject_id, task_type) DO NOTHING;
    ELSIF NEW.stage = 'translated' THEN
        INSERT INTO public.audio_tasks
            (subject_type, subject_id, spotify_track_id, task_type, status, attempts, max_attempts, created_at)
        VALUES ('track', NEW.spotify_track_id, NEW.spotify_track_id, 'separate', 'pending', 0, 3, now())
        ON CONFLICT (subject_type, subject_id, task_type) DO NOTHING;
    ELSIF NEW.stage = 'separated' THEN
        INSERT INTO public.audio_tasks
            (subject_type, subject_id, spotify_track_id, task_type, status, attempts, max_attempts, created_at)
        VALUES ('track', NEW.spotify_track_id, NEW.spotify_track_id, 'segment', 'pending', 0, 3, now())
        ON CONFLICT (subject_type, subject_id, task_type) DO NOTHING;
    ELSIF NEW.stage = 'segmented' THEN
        INSERT INTO public.audio_tasks
            (subject_type, subject_id, spotify_track_id, task_type, status, attempts, max_attempts, created_at)
        VALUES ('track', NEW.spotify_track_id, NEW.spotify_track_id, 'enhance', 'pending', 0, 3, now())
        ON CONFLICT (subject_type, subject_id, task_type) DO NOTHING;
    ELSIF NEW.stage = 'enhanced' THEN
        INSERT INTO public.audio_tasks
            (subject_type, subject_id, spotify_track_id, task_type, status, attempts, max_attempts, created_at)
        VALUES ('track', NEW.spotify_track_id, NEW.spotify_track_id, 'clip', 'pending', 0, 3, now())
        ON CONFLICT (subject_type, subject_id, task_type) DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.queue_insights_tracks_to_audio_tasks() IS 'queue-insights {"pipeline": "karaoke", "fingerprint": "7e79f00d650e", "variant": "b", "sql": "e3912b48e6eb"}';
CREATE FUNCTION public.set_updated_at() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.audio_tasks (
    id integer NOT NULL,
    spotify_track_id text,
    task_type text,
    status text DEFAULT 'pending'::text,
    grove_cid text,
    grove_url text,
    metadata jsonb,
    attempts integer DEFAULT 0,
    max_attempts integer DEFAULT 3,
    last_attempt_at timestamp with time zone,
    next_retry_at timestamp with time zone,
    error_message text,
    error_details jsonb,
    processing_duration_ms integer,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now(),
    completed_at timestamp with time zone,
    subject_type text DEFAULT 'track'::text NOT NULL,
    subject_id text NOT NULL,
    CONSTRAINT audio_tasks_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'skipped'::text]))),
    CONSTRAINT audio_tasks_subject_check CHECK ((((subject_type = 'track'::text) AND (spotify_track_id IS NOT NULL) AND (subject_id = spotify_track_id)) OR ((subject_type = 'tiktok_video'::text) AND (spotify_track_id IS NULL)))),
    CONSTRAINT audio_tasks_subject_type_check CHECK ((subject_type = ANY (ARRAY['track'::text, 'tiktok_video'::text]))),
    CONSTRAINT audio_tasks_task_type_check CHECK ((task_type = ANY (ARRAY['download'::text, 'align'::text, 'translate'::text, 'translation_quiz'::text, 'trivia'::text, 'separate'::text, 'segment'::text, 'enhance'::text, 'clip'::text, 'encrypt'::text, 'video_download'::text, 'video_transcribe'::text, 'video_translate'::text, 'video_encrypt'::text])))
);
CREATE VIEW public.audio_progress AS
 SELECT spotify_track_id,
    count(*) AS total_tasks,
    count(*) FILTER (WHERE (status = 'completed'::text)) AS completed,
    count(*) FILTER (WHERE (status = 'failed'::text)) AS failed,
    count(*) FILTER (WHERE (status = 'pending'::text)) AS pending,
    bool_and((status = ANY (ARRAY['completed'::text, 'skipped'::text]))) AS all_complete,
    max(updated_at) AS last_updated
   FROM public.audio_tasks
  WHERE (subject_type = 'track'::text)
  GROUP BY spotify_track_id;
CREATE SEQUENCE public.audio_tasks_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.audio_tasks_id_seq OWNED BY public.audio_tasks.id;
CREATE VIEW public.task_summary AS
 SELECT
        CASE subject_type
            WHEN 'track'::text THEN 'audio'::text
            ELSE 'video'::text
        END AS category,
    task_type,
    status,
    count(*) AS count,
    avg(attempts) AS avg_attempts,
    min(last_attempt_at) AS oldest_attempt,
    max(last_attempt_at) AS newest_attempt
   FROM public.audio_tasks
  GROUP BY subject_type, task_type, status;
CREATE TABLE public.tracks (
    spotify_track_id text NOT NULL,
    tiktok_video_id text,
    title text NOT NULL,
    artists jsonb NOT NULL,
    album_name text,
    release_date date,
    duration_ms integer,
    isrc text,
    primary_artist_id text,
    primary_artist_name text,
    stage text DEFAULT 'pending'::text NOT NULL,
    has_iswc boolean DEFAULT false,
    has_lyrics boolean DEFAULT false,
    has_audio boolean DEFAULT false,
    error_message text,
    error_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now(),
    updated_at timestamp with time zone DEFAULT now(),
    source_type text DEFAULT 'tiktok'::text,
    metadata jsonb,
    CONSTRAINT tracks_stage_check CHECK ((stage = ANY (ARRAY['pending'::text, 'enriched'::text, 'lyrics_acquired'::text, 'audio_ready'::text, 'aligned'::text, 'translated'::text, 'translation_quiz_ready'::text, 'trivia_ready'::text, 'separated'::text, 'segmented'::text, 'enhanced'::text, 'ready'::text, 'pkp_minted'::text, 'lens_created'::text, 'grc20_ready'::text, 'grc20_submitted'::text, 'encrypted'::text, 'unlock_deployed'::text, 'published'::text, 'failed'::text])))
);
CREATE VIEW queue_insights.audit AS
 WITH step("position", stage, task_type, stuck_after, previous_0) AS (
         VALUES (0,'lyrics_acquired'::text,'download'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),NULL::text), (1,'audio_ready'::text,'align'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'download'::text), (2,'aligned'::text,'translate'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'align'::text), (3,'translated'::text,'separate'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'translate'::text), (4,'separated'::text,'segment'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'separate'::text), (5,'segmented'::text,'enhance'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'segment'::text), (6,'enhanced'::text,'clip'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'enhance'::text)
        )
 SELECT step.stage,
    step.task_type,
    COALESCE(tracks.eligible, (0)::bigint) AS eligible,
    COALESCE(rows.visible, (0)::bigint) AS visible,
    COALESCE(tracks.hidden, (0)::bigint) AS hidden,
    (COALESCE(rows."all", (0)::bigint) - COALESCE(tracks.with_open_row, (0)::bigint)) AS orphans,
        CASE
            WHEN (COALESCE(tracks.hidden, (0)::bigint) > 0) THEN 'hidden'::text
            WHEN ((COALESCE(rows."all", (0)::bigint) - COALESCE(tracks.with_open_row, (0)::bigint)) > 0) THEN 'overstated'::text
            ELSE 'visible'::text
        END AS verdict
   FROM ((step
     LEFT JOIN ( SELECT standing."position",
            count(*) FILTER (WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))) AS eligible,
            count(*) FILTER (WHERE (standing.state = 'missing'::text)) AS hidden,
            count(*) FILTER (WHERE (standing.state = ANY (ARRAY['pending'::text, 'retryable'::text, 'backing_off'::text, 'exhausted'::text]))) AS with_open_row
           FROM ( SELECT step_1."position",
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - step_1.stuck_after))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(( SELECT max(before.completed_at) AS max_1
                           FROM public.audio_tasks before
                          WHERE ((before.subject_type = 'track'::text) AND (before.subject_id = track.spotify_track_id) AND (before.task_type = step_1.previous_0))), COALESCE(task_row.created_at, track.updated_at)) AS arrived_at
                   FROM ((step step_1
                     JOIN public.tracks track ON (((track.stage = step_1.stage) AND (track.stage = ANY (ARRAY['lyrics_acquired'::text, 'audio_ready'::text, 'aligned'::text, 'translated'::text, 'separated'::text, 'segmented'::text, 'enhanced'::text])))))
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = step_1.task_type))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                 OFFSET 0
                 LIMIT ALL) standing
          GROUP BY standing."position") tracks ON ((tracks."position" = step."position")))
     LEFT JOIN ( SELECT task.task_type,
            count(*) FILTER (WHERE (task.status = 'pending'::text)) AS visible,
            count(*) AS "all"
           FROM public.audio_tasks task
          WHERE ((task.subject_type = 'track'::text) AND (task.task_type = ANY (ARRAY['download'::text, 'align'::text, 'translate'::text, 'separate'::text, 'segment'::text, 'enhance'::text, 'clip'::text])) AND (task.status = ANY (ARRAY['pending'::text, 'failed'::text])))
          GROUP BY task.task_type) rows ON ((rows.task_type = step.task_type)))
  ORDER BY step."position";
COMMENT ON VIEW queue_insights.audit IS 'queue-insights {"pipeline": "karaoke", "fingerprint": "7e79f00d650e", "variant": "b", "sql": "c6a271367b08"}';
CREATE VIEW queue_insights.backlog AS
 WITH step("position", stage, task_type, stuck_after, previous_0) AS (
         VALUES (0,'lyrics_acquired'::text,'download'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),NULL::text), (1,'audio_ready'::text,'align'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'download'::text), (2,'aligned'::text,'translate'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'align'::text), (3,'translated'::text,'separate'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'translate'::text), (4,'separated'::text,'segment'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'separate'::text), (5,'segmented'::text,'enhance'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'segment'::text), (6,'enhanced'::text,'clip'::text,make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision),'enhance'::text)
        )
 SELECT step.stage,
    step.task_type,
    COALESCE(tracks.tracks, (0)::bigint) AS tracks,
    COALESCE(tracks.missing, (0)::bigint) AS missing,
    COALESCE(tracks.pending, (0)::bigint) AS pending,
    COALESCE(tracks.retryable, (0)::bigint) AS retryable,
    COALESCE(tracks.backing_off, (0)::bigint) AS backing_off,
    COALESCE(tracks.running, (0)::bigint) AS running,
    COALESCE(tracks.stuck, (0)::bigint) AS stuck,
    COALESCE(tracks.exhausted, (0)::bigint) AS exhausted,
    COALESCE(tracks.drifted, (0)::bigint) AS drifted,
    COALESCE(tracks.skipped, (0)::bigint) AS skipped,
    COALESCE(tracks.other, (0)::bigint) AS other,
    COALESCE(tracks.eligible, (0)::bigint) AS eligible,
    COALESCE(tracks.waiting, (0)::bigint) AS waiting,
    COALESCE(rows.visible, (0)::bigint) AS visible,
    tracks.oldest AS oldest_waiting_seconds
   FROM ((step
     LEFT JOIN ( SELECT standing."position",
            count(*) AS tracks,
            count(*) FILTER (WHERE (standing.state = 'missing'::text)) AS missing,
            count(*) FILTER (WHERE (standing.state = 'pending'::text)) AS pending,
            count(*) FILTER (WHERE (standing.state = 'retryable'::text)) AS retryable,
            count(*) FILTER (WHERE (standing.state = 'backing_off'::text)) AS backing_off,
            count(*) FILTER (WHERE (standing.state = 'running'::text)) AS running,
            count(*) FILTER (WHERE (standing.state = 'stuck'::text)) AS stuck,
            count(*) FILTER (WHERE (standing.state = 'exhausted'::text)) AS exhausted,
            count(*) FILTER (WHERE (standing.state = 'drifted'::text)) AS drifted,
            count(*) FILTER (WHERE (standing.state = 'skipped'::text)) AS skipped,
            count(*) FILTER (WHERE (standing.state = 'other'::text)) AS other,
            count(*) FILTER (WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))) AS eligible,
            count(*) FILTER (WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text, 'backing_off'::text]))) AS waiting,
            (EXTRACT(epoch FROM (now() - min(standing.arrived_at) FILTER (WHERE ((standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text, 'backing_off'::text])) AND isfinite(standing.arrived_at))))))::double precision AS oldest
           FROM ( SELECT step_1."position",
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - step_1.stuck_after))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(( SELECT max(before.completed_at) AS max_1
                           FROM public.audio_tasks before
                          WHERE ((before.subject_type = 'track'::text) AND (before.subject_id = track.spotify_track_id) AND (before.task_type = step_1.previous_0))), COALESCE(task_row.created_at, track.updated_at)) AS arrived_at
                   FROM ((step step_1
                     JOIN public.tracks track ON (((track.stage = step_1.stage) AND (track.stage = ANY (ARRAY['lyrics_acquired'::text, 'audio_ready'::text, 'aligned'::text, 'translated'::text, 'separated'::text, 'segmented'::text, 'enhanced'::text])))))
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = step_1.task_type))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                 OFFSET 0
                 LIMIT ALL) standing
          GROUP BY standing."position") tracks ON ((tracks."position" = step."position")))
     LEFT JOIN ( SELECT task.task_type,
            count(*) FILTER (WHERE (task.status = 'pending'::text)) AS visible,
            count(*) AS "all"
           FROM public.audio_tasks task
          WHERE ((task.subject_type = 'track'::text) AND (task.task_type = ANY (ARRAY['download'::text, 'align'::text, 'translate'::text, 'separate'::text, 'segment'::text, 'enhance'::text, 'clip'::text])) AND (task.status = 'pending'::text))
          GROUP BY task.task_type) rows ON ((rows.task_type = step.task_type)))
  ORDER BY step."position";
COMMENT ON VIEW queue_insights.backlog IS 'queue-insights {"pipeline": "karaoke", "fingerprint": "7e79f00d650e", "variant": "b", "sql": "538dd26c1346"}';
CREATE TABLE queue_insights.batches (
    run bigint NOT NULL,
    batch integer NOT NULL,
    task_type text NOT NULL,
    fence bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    ids text[] NOT NULL,
    digests bigint[] NOT NULL,
    before jsonb,
    dropped jsonb NOT NULL,
    undone_at timestamp with time zone,
    kept jsonb
);
CREATE VIEW queue_insights.pending_tasks AS
 SELECT spotify_track_id,
    title,
    stage,
    task_type,
    state,
    arrived_at,
    id,
    status,
    grove_cid,
    grove_url,
    metadata,
    attempts,
    max_attempts,
    last_attempt_at,
    next_retry_at,
    error_message,
    error_details,
    processing_duration_ms,
    created_at,
    updated_at,
    completed_at
   FROM ( SELECT standing.track_id AS spotify_track_id,
            standing.title,
            standing.stage,
            standing.task_type,
            standing.state,
            standing.arrived_at,
            standing.row_id AS id,
            standing.row_status AS status,
            standing.row_grove_cid AS grove_cid,
            standing.row_grove_url AS grove_url,
            standing.row_metadata AS metadata,
            standing.row_attempts AS attempts,
            standing.row_max_attempts AS max_attempts,
            standing.row_last_attempt_at AS last_attempt_at,
            standing.row_next_retry_at AS next_retry_at,
            standing.row_error_message AS error_message,
            standing.row_error_details AS error_details,
            standing.row_processing_duration_ms AS processing_duration_ms,
            standing.row_created_at AS created_at,
            standing.row_updated_at AS updated_at,
            standing.row_completed_at AS completed_at
           FROM ( SELECT track.spotify_track_id AS track_id,
                    track.title,
                    track.stage,
                    'download'::text AS task_type,
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision)))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(task_row.created_at, track.updated_at) AS arrived_at,
                    task_row.id AS row_id,
                    task_row.status AS row_status,
                    task_row.grove_cid AS row_grove_cid,
                    task_row.grove_url AS row_grove_url,
                    task_row.metadata AS row_metadata,
                    task_row.attempts AS row_attempts,
                    task_row.max_attempts AS row_max_attempts,
                    task_row.last_attempt_at AS row_last_attempt_at,
                    task_row.next_retry_at AS row_next_retry_at,
                    task_row.error_message AS row_error_message,
                    task_row.error_details AS row_error_details,
                    task_row.processing_duration_ms AS row_processing_duration_ms,
                    task_row.created_at AS row_created_at,
                    task_row.updated_at AS row_updated_at,
                    task_row.completed_at AS row_completed_at
                   FROM (public.tracks track
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at,
                            task.grove_cid,
                            task.grove_url,
                            task.metadata,
                            task.error_message,
                            task.error_details,
                            task.processing_duration_ms,
                            task.updated_at,
                            task.completed_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = 'download'::text))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                  WHERE (track.stage = 'lyrics_acquired'::text)) standing
          WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))
        UNION ALL
         SELECT standing.track_id AS spotify_track_id,
            standing.title,
            standing.stage,
            standing.task_type,
            standing.state,
            standing.arrived_at,
            standing.row_id AS id,
            standing.row_status AS status,
            standing.row_grove_cid AS grove_cid,
            standing.row_grove_url AS grove_url,
            standing.row_metadata AS metadata,
            standing.row_attempts AS attempts,
            standing.row_max_attempts AS max_attempts,
            standing.row_last_attempt_at AS last_attempt_at,
            standing.row_next_retry_at AS next_retry_at,
            standing.row_error_message AS error_message,
            standing.row_error_details AS error_details,
            standing.row_processing_duration_ms AS processing_duration_ms,
            standing.row_created_at AS created_at,
            standing.row_updated_at AS updated_at,
            standing.row_completed_at AS completed_at
           FROM ( SELECT track.spotify_track_id AS track_id,
                    track.title,
                    track.stage,
                    'align'::text AS task_type,
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision)))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(( SELECT max(before.completed_at) AS max_1
                           FROM public.audio_tasks before
                          WHERE ((before.subject_type = 'track'::text) AND (before.subject_id = track.spotify_track_id) AND (before.task_type = 'download'::text))), COALESCE(task_row.created_at, track.updated_at)) AS arrived_at,
                    task_row.id AS row_id,
                    task_row.status AS row_status,
                    task_row.grove_cid AS row_grove_cid,
                    task_row.grove_url AS row_grove_url,
                    task_row.metadata AS row_metadata,
                    task_row.attempts AS row_attempts,
                    task_row.max_attempts AS row_max_attempts,
                    task_row.last_attempt_at AS row_last_attempt_at,
                    task_row.next_retry_at AS row_next_retry_at,
                    task_row.error_message AS row_error_message,
                    task_row.error_details AS row_error_details,
                    task_row.processing_duration_ms AS row_processing_duration_ms,
                    task_row.created_at AS row_created_at,
                    task_row.updated_at AS row_updated_at,
                    task_row.completed_at AS row_completed_at
                   FROM (public.tracks track
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at,
                            task.grove_cid,
                            task.grove_url,
                            task.metadata,
                            task.error_message,
                            task.error_details,
                            task.processing_duration_ms,
                            task.updated_at,
                            task.completed_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = 'align'::text))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                  WHERE (track.stage = 'audio_ready'::text)) standing
          WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))
        UNION ALL
         SELECT standing.track_id AS spotify_track_id,
            standing.title,
            standing.stage,
            standing.task_type,
            standing.state,
            standing.arrived_at,
            standing.row_id AS id,
            standing.row_status AS status,
            standing.row_grove_cid AS grove_cid,
            standing.row_grove_url AS grove_url,
            standing.row_metadata AS metadata,
            standing.row_attempts AS attempts,
            standing.row_max_attempts AS max_attempts,
            standing.row_last_attempt_at AS last_attempt_at,
            standing.row_next_retry_at AS next_retry_at,
            standing.row_error_message AS error_message,
            standing.row_error_details AS error_details,
            standing.row_processing_duration_ms AS processing_duration_ms,
            standing.row_created_at AS created_at,
            standing.row_updated_at AS updated_at,
            standing.row_completed_at AS completed_at
           FROM ( SELECT track.spotify_track_id AS track_id,
                    track.title,
                    track.stage,
                    'translate'::text AS task_type,
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision)))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(( SELECT max(before.completed_at) AS max_2
                           FROM public.audio_tasks before
                          WHERE ((before.subject_type = 'track'::text) AND (before.subject_id = track.spotify_track_id) AND (before.task_type = 'align'::text))), COALESCE(task_row.created_at, track.updated_at)) AS arrived_at,
                    task_row.id AS row_id,
                    task_row.status AS row_status,
                    task_row.grove_cid AS row_grove_cid,
                    task_row.grove_url AS row_grove_url,
                    task_row.metadata AS row_metadata,
                    task_row.attempts AS row_attempts,
                    task_row.max_attempts AS row_max_attempts,
                    task_row.last_attempt_at AS row_last_attempt_at,
                    task_row.next_retry_at AS row_next_retry_at,
                    task_row.error_message AS row_error_message,
                    task_row.error_details AS row_error_details,
                    task_row.processing_duration_ms AS row_processing_duration_ms,
                    task_row.created_at AS row_created_at,
                    task_row.updated_at AS row_updated_at,
                    task_row.completed_at AS row_completed_at
                   FROM (public.tracks track
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at,
                            task.grove_cid,
                            task.grove_url,
                            task.metadata,
                            task.error_message,
                            task.error_details,
                            task.processing_duration_ms,
                            task.updated_at,
                            task.completed_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = 'translate'::text))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                  WHERE (track.stage = 'aligned'::text)) standing
          WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))
        UNION ALL
         SELECT standing.track_id AS spotify_track_id,
            standing.title,
            standing.stage,
            standing.task_type,
            standing.state,
            standing.arrived_at,
            standing.row_id AS id,
            standing.row_status AS status,
            standing.row_grove_cid AS grove_cid,
            standing.row_grove_url AS grove_url,
            standing.row_metadata AS metadata,
            standing.row_attempts AS attempts,
            standing.row_max_attempts AS max_attempts,
            standing.row_last_attempt_at AS last_attempt_at,
            standing.row_next_retry_at AS next_retry_at,
            standing.row_error_message AS error_message,
            standing.row_error_details AS error_details,
            standing.row_processing_duration_ms AS processing_duration_ms,
            standing.row_created_at AS created_at,
            standing.row_updated_at AS updated_at,
            standing.row_completed_at AS completed_at
           FROM ( SELECT track.spotify_track_id AS track_id,
                    track.title,
                    track.stage,
                    'separate'::text AS task_type,
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision)))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(( SELECT max(before.completed_at) AS max_3
                           FROM public.audio_tasks before
                          WHERE ((before.subject_type = 'track'::text) AND (before.subject_id = track.spotify_track_id) AND (before.task_type = 'translate'::text))), COALESCE(task_row.created_at, track.updated_at)) AS arrived_at,
                    task_row.id AS row_id,
                    task_row.status AS row_status,
                    task_row.grove_cid AS row_grove_cid,
                    task_row.grove_url AS row_grove_url,
                    task_row.metadata AS row_metadata,
                    task_row.attempts AS row_attempts,
                    task_row.max_attempts AS row_max_attempts,
                    task_row.last_attempt_at AS row_last_attempt_at,
                    task_row.next_retry_at AS row_next_retry_at,
                    task_row.error_message AS row_error_message,
                    task_row.error_details AS row_error_details,
                    task_row.processing_duration_ms AS row_processing_duration_ms,
                    task_row.created_at AS row_created_at,
                    task_row.updated_at AS row_updated_at,
                    task_row.completed_at AS row_completed_at
                   FROM (public.tracks track
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at,
                            task.grove_cid,
                            task.grove_url,
                            task.metadata,
                            task.error_message,
                            task.error_details,
                            task.processing_duration_ms,
                            task.updated_at,
                            task.completed_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = 'separate'::text))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                  WHERE (track.stage = 'translated'::text)) standing
          WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))
        UNION ALL
         SELECT standing.track_id AS spotify_track_id,
            standing.title,
            standing.stage,
            standing.task_type,
            standing.state,
            standing.arrived_at,
            standing.row_id AS id,
            standing.row_status AS status,
            standing.row_grove_cid AS grove_cid,
            standing.row_grove_url AS grove_url,
            standing.row_metadata AS metadata,
            standing.row_attempts AS attempts,
            standing.row_max_attempts AS max_attempts,
            standing.row_last_attempt_at AS last_attempt_at,
            standing.row_next_retry_at AS next_retry_at,
            standing.row_error_message AS error_message,
            standing.row_error_details AS error_details,
            standing.row_processing_duration_ms AS processing_duration_ms,
            standing.row_created_at AS created_at,
            standing.row_updated_at AS updated_at,
            standing.row_completed_at AS completed_at
           FROM ( SELECT track.spotify_track_id AS track_id,
                    track.title,
                    track.stage,
                    'segment'::text AS task_type,
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision)))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(( SELECT max(before.completed_at) AS max_4
                           FROM public.audio_tasks before
                          WHERE ((before.subject_type = 'track'::text) AND (before.subject_id = track.spotify_track_id) AND (before.task_type = 'separate'::text))), COALESCE(task_row.created_at, track.updated_at)) AS arrived_at,
                    task_row.id AS row_id,
                    task_row.status AS row_status,
                    task_row.grove_cid AS row_grove_cid,
                    task_row.grove_url AS row_grove_url,
                    task_row.metadata AS row_metadata,
                    task_row.attempts AS row_attempts,
                    task_row.max_attempts AS row_max_attempts,
                    task_row.last_attempt_at AS row_last_attempt_at,
                    task_row.next_retry_at AS row_next_retry_at,
                    task_row.error_message AS row_error_message,
                    task_row.error_details AS row_error_details,
                    task_row.processing_duration_ms AS row_processing_duration_ms,
                    task_row.created_at AS row_created_at,
                    task_row.updated_at AS row_updated_at,
                    task_row.completed_at AS row_completed_at
                   FROM (public.tracks track
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at,
                            task.grove_cid,
                            task.grove_url,
                            task.metadata,
                            task.error_message,
                            task.error_details,
                            task.processing_duration_ms,
                            task.updated_at,
                            task.completed_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = 'segment'::text))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                  WHERE (track.stage = 'separated'::text)) standing
          WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))
        UNION ALL
         SELECT standing.track_id AS spotify_track_id,
            standing.title,
            standing.stage,
            standing.task_type,
            standing.state,
            standing.arrived_at,
            standing.row_id AS id,
            standing.row_status AS status,
            standing.row_grove_cid AS grove_cid,
            standing.row_grove_url AS grove_url,
            standing.row_metadata AS metadata,
            standing.row_attempts AS attempts,
            standing.row_max_attempts AS max_attempts,
            standing.row_last_attempt_at AS last_attempt_at,
            standing.row_next_retry_at AS next_retry_at,
            standing.row_error_message AS error_message,
            standing.row_error_details AS error_details,
            standing.row_processing_duration_ms AS processing_duration_ms,
            standing.row_created_at AS created_at,
            standing.row_updated_at AS updated_at,
            standing.row_completed_at AS completed_at
           FROM ( SELECT track.spotify_track_id AS track_id,
                    track.title,
                    track.stage,
                    'enhance'::text AS task_type,
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision)))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(( SELECT max(before.completed_at) AS max_5
                           FROM public.audio_tasks before
                          WHERE ((before.subject_type = 'track'::text) AND (before.subject_id = track.spotify_track_id) AND (before.task_type = 'segment'::text))), COALESCE(task_row.created_at, track.updated_at)) AS arrived_at,
                    task_row.id AS row_id,
                    task_row.status AS row_status,
                    task_row.grove_cid AS row_grove_cid,
                    task_row.grove_url AS row_grove_url,
                    task_row.metadata AS row_metadata,
                    task_row.attempts AS row_attempts,
                    task_row.max_attempts AS row_max_attempts,
                    task_row.last_attempt_at AS row_last_attempt_at,
                    task_row.next_retry_at AS row_next_retry_at,
                    task_row.error_message AS row_error_message,
                    task_row.error_details AS row_error_details,
                    task_row.processing_duration_ms AS row_processing_duration_ms,
                    task_row.created_at AS row_created_at,
                    task_row.updated_at AS row_updated_at,
                    task_row.completed_at AS row_completed_at
                   FROM (public.tracks track
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at,
                            task.grove_cid,
                            task.grove_url,
                            task.metadata,
                            task.error_message,
                            task.error_details,
                            task.processing_duration_ms,
                            task.updated_at,
                            task.completed_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = 'enhance'::text))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                  WHERE (track.stage = 'segmented'::text)) standing
          WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))
        UNION ALL
         SELECT standing.track_id AS spotify_track_id,
            standing.title,
            standing.stage,
            standing.task_type,
            standing.state,
            standing.arrived_at,
            standing.row_id AS id,
            standing.row_status AS status,
            standing.row_grove_cid AS grove_cid,
            standing.row_grove_url AS grove_url,
            standing.row_metadata AS metadata,
            standing.row_attempts AS attempts,
            standing.row_max_attempts AS max_attempts,
            standing.row_last_attempt_at AS last_attempt_at,
            standing.row_next_retry_at AS next_retry_at,
            standing.row_error_message AS error_message,
            standing.row_error_details AS error_details,
            standing.row_processing_duration_ms AS processing_duration_ms,
            standing.row_created_at AS created_at,
            standing.row_updated_at AS updated_at,
            standing.row_completed_at AS completed_at
           FROM ( SELECT track.spotify_track_id AS track_id,
                    track.title,
                    track.stage,
                    'clip'::text AS task_type,
                        CASE
                            WHEN (task_row.id IS NULL) THEN 'missing'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (NOT ((task_row.next_retry_at IS NULL) OR (task_row.next_retry_at <= now())))) THEN 'backing_off'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts) AND (task_row.status = 'pending'::text)) THEN 'pending'::text
                            WHEN ((task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) AND (task_row.attempts < task_row.max_attempts)) THEN 'retryable'::text
                            WHEN (task_row.status = ANY (ARRAY['pending'::text, 'failed'::text])) THEN 'exhausted'::text
                            WHEN ((task_row.status = 'running'::text) AND (task_row.last_attempt_at >= (now() - make_interval(0, 0, 0, 0, 0, 0, (1800.0)::double precision)))) THEN 'running'::text
                            WHEN (task_row.status = 'running'::text) THEN 'stuck'::text
                            WHEN (task_row.status = 'completed'::text) THEN 'drifted'::text
                            WHEN (task_row.status = 'skipped'::text) THEN 'skipped'::text
                            ELSE 'other'::text
                        END AS state,
                    COALESCE(( SELECT max(before.completed_at) AS max_6
                           FROM public.audio_tasks before
                          WHERE ((before.subject_type = 'track'::text) AND (before.subject_id = track.spotify_track_id) AND (before.task_type = 'enhance'::text))), COALESCE(task_row.created_at, track.updated_at)) AS arrived_at,
                    task_row.id AS row_id,
                    task_row.status AS row_status,
                    task_row.grove_cid AS row_grove_cid,
                    task_row.grove_url AS row_grove_url,
                    task_row.metadata AS row_metadata,
                    task_row.attempts AS row_attempts,
                    task_row.max_attempts AS row_max_attempts,
                    task_row.last_attempt_at AS row_last_attempt_at,
                    task_row.next_retry_at AS row_next_retry_at,
                    task_row.error_message AS row_error_message,
                    task_row.error_details AS row_error_details,
                    task_row.processing_duration_ms AS row_processing_duration_ms,
                    task_row.created_at AS row_created_at,
                    task_row.updated_at AS row_updated_at,
                    task_row.completed_at AS row_completed_at
                   FROM (public.tracks track
                     LEFT JOIN LATERAL ( SELECT task.id,
                            task.status,
                            task.attempts,
                            task.max_attempts,
                            task.last_attempt_at,
                            task.next_retry_at,
                            task.created_at,
                            task.grove_cid,
                            task.grove_url,
                            task.metadata,
                            task.error_message,
                            task.error_details,
                            task.processing_duration_ms,
                            task.updated_at,
                            task.completed_at
                           FROM public.audio_tasks task
                          WHERE ((task.subject_type = 'track'::text) AND (task.subject_id = track.spotify_track_id) AND (task.task_type = 'clip'::text))
                         OFFSET 0
                         LIMIT ALL) task_row ON (true))
                  WHERE (track.stage = 'enhanced'::text)) standing
          WHERE (standing.state = ANY (ARRAY['missing'::text, 'pending'::text, 'retryable'::text]))) found
  ORDER BY arrived_at, spotify_track_id, task_type;
COMMENT ON VIEW queue_insights.pending_tasks IS 'queue-insights {"pipeline": "karaoke", "fingerprint": "7e79f00d650e", "variant": "b", "sql": "b01376c28407"}';
CREATE TABLE queue_insights.runs (
    run bigint NOT NULL,
    pipeline text NOT NULL,
    fingerprint text NOT NULL,
    variant text NOT NULL,
    action text NOT NULL,
    parameters jsonb NOT NULL,
    planned jsonb NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    undoing boolean DEFAULT false NOT NULL,
    fence bigint DEFAULT 1 NOT NULL,
    role text DEFAULT SESSION_USER NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    last_batch_at timestamp with time zone,
    ended_at timestamp with time zone,
    rows_planned bigint NOT NULL,
    rows_done bigint DEFAULT 0 NOT NULL,
    rows_dropped bigint DEFAULT 0 NOT NULL,
    came_after bigint DEFAULT 0 NOT NULL,
    rows_undone bigint DEFAULT 0 NOT NULL,
    rows_kept bigint DEFAULT 0 NOT NULL,
    error text,
    CONSTRAINT runs_state_check CHECK ((state = ANY (ARRAY['running'::text, 'stopped'::text, 'failed'::text, 'finished'::text, 'undone'::text])))
);
ALTER TABLE queue_insights.runs ALTER COLUMN run ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME queue_insights.runs_run_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE queue_insights.targets (
    run bigint NOT NULL,
    chunk bigint NOT NULL,
    task_type text NOT NULL,
    pass integer DEFAULT 1 NOT NULL,
    ids text[] NOT NULL,
    arrived timestamp with time zone[] NOT NULL
);
ALTER TABLE ONLY public.audio_tasks ALTER COLUMN id SET DEFAULT nextval('public.audio_tasks_id_seq'::regclass);
INSERT INTO public.audio_tasks VALUES (1, 't00', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.011549+00', '2026-11-25 20:33:41.011549+00', '2026-11-20 00:00:00+00', 'track', 't00');
INSERT INTO public.audio_tasks VALUES (2, 't01', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.014881+00', '2026-11-25 20:33:41.014881+00', '2026-11-20 01:00:00+00', 'track', 't01');
INSERT INTO public.audio_tasks VALUES (3, 't02', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.02088+00', '2026-11-25 20:33:41.02088+00', '2026-11-20 02:00:00+00', 'track', 't02');
INSERT INTO public.audio_tasks VALUES (4, 't03', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.023785+00', '2026-11-25 20:33:41.023785+00', '2026-11-20 03:00:00+00', 'track', 't03');
INSERT INTO public.audio_tasks VALUES (5, 't04', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.024425+00', '2026-11-25 20:33:41.024425+00', '2026-11-20 04:00:00+00', 'track', 't04');
INSERT INTO public.audio_tasks VALUES (6, 't05', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.026409+00', '2026-11-25 20:33:41.026409+00', '2026-11-20 05:00:00+00', 'track', 't05');
INSERT INTO public.audio_tasks VALUES (7, 't06', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.034565+00', '2026-11-25 20:33:41.034565+00', '2026-11-20 06:00:00+00', 'track', 't06');
INSERT INTO public.audio_tasks VALUES (8, 't07', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.035289+00', '2026-11-25 20:33:41.035289+00', '2026-11-20 07:00:00+00', 'track', 't07');
INSERT INTO public.audio_tasks VALUES (9, 't08', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.038248+00', '2026-11-25 20:33:41.038248+00', '2026-11-20 08:00:00+00', 'track', 't08');
INSERT INTO public.audio_tasks VALUES (10, 't09', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.03871+00', '2026-11-25 20:33:41.03871+00', '2026-11-20 09:00:00+00', 'track', 't09');
INSERT INTO public.audio_tasks VALUES (11, 't10', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.039169+00', '2026-11-25 20:33:41.039169+00', '2026-11-20 10:00:00+00', 'track', 't10');
INSERT INTO public.audio_tasks VALUES (12, 't11', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.03955+00', '2026-11-25 20:33:41.03955+00', '2026-11-20 11:00:00+00', 'track', 't11');
INSERT INTO public.audio_tasks VALUES (13, 't12', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.039878+00', '2026-11-25 20:33:41.039878+00', '2026-11-20 12:00:00+00', 'track', 't12');
INSERT INTO public.audio_tasks VALUES (14, 't13', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.04034+00', '2026-11-25 20:33:41.04034+00', '2026-11-20 13:00:00+00', 'track', 't13');
INSERT INTO public.audio_tasks VALUES (15, 't14', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.050532+00', '2026-11-25 20:33:41.050532+00', '2026-11-20 14:00:00+00', 'track', 't14');
INSERT INTO public.audio_tasks VALUES (16, 't15', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.051032+00', '2026-11-25 20:33:41.051032+00', '2026-11-20 15:00:00+00', 'track', 't15');
INSERT INTO public.audio_tasks VALUES (17, 't16', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.051482+00', '2026-11-25 20:33:41.051482+00', '2026-11-20 16:00:00+00', 'track', 't16');
INSERT INTO public.audio_tasks VALUES (18, 't17', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.051927+00', '2026-11-25 20:33:41.051927+00', '2026-11-20 17:00:00+00', 'track', 't17');
INSERT INTO public.audio_tasks VALUES (19, 't18', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.052332+00', '2026-11-25 20:33:41.052332+00', '2026-11-20 18:00:00+00', 'track', 't18');
INSERT INTO public.audio_tasks VALUES (20, 't19', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.054106+00', '2026-11-25 20:33:41.054106+00', '2026-11-20 19:00:00+00', 'track', 't19');
INSERT INTO public.audio_tasks VALUES (21, 't20', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.060311+00', '2026-11-25 20:33:41.060311+00', '2026-11-20 20:00:00+00', 'track', 't20');
INSERT INTO public.audio_tasks VALUES (22, 't21', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.061263+00', '2026-11-25 20:33:41.061263+00', '2026-11-20 21:00:00+00', 'track', 't21');
INSERT INTO public.audio_tasks VALUES (23, 't22', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.061921+00', '2026-11-25 20:33:41.061921+00', '2026-11-20 22:00:00+00', 'track', 't22');
INSERT INTO public.audio_tasks VALUES (24, 't23', 'download', 'completed', NULL, NULL, NULL, 1, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-25 20:33:41.062365+00', '2026-11-25 20:33:41.062365+00', '2026-11-20 23:00:00+00', 'track', 't23');
INSERT INTO public.audio_tasks VALUES (25, 's0', 'translate', 'pending', NULL, NULL, NULL, 1, 3, '2026-11-19 00:00:00+00', NULL, 'lost', NULL, NULL, '2026-11-25 20:33:41.062868+00', '2026-11-25 20:33:42.410508+00', NULL, 'track', 's0');
INSERT INTO public.audio_tasks VALUES (26, 's1', 'translate', 'pending', NULL, NULL, NULL, 1, 3, '2026-11-19 00:00:00+00', NULL, 'lost', NULL, NULL, '2026-11-25 20:33:41.070453+00', '2026-11-25 20:33:42.410508+00', NULL, 'track', 's1');
INSERT INTO public.audio_tasks VALUES (27, 's2', 'translate', 'pending', NULL, NULL, NULL, 1, 3, '2026-11-19 00:00:00+00', NULL, 'lost', NULL, NULL, '2026-11-25 20:33:41.071027+00', '2026-11-25 20:33:42.410508+00', NULL, 'track', 's2');
INSERT INTO public.audio_tasks VALUES (28, 's3', 'translate', 'pending', NULL, NULL, NULL, 1, 3, '2026-11-19 00:00:00+00', NULL, 'lost', NULL, NULL, '2026-11-25 20:33:41.071483+00', '2026-11-25 20:33:42.410508+00', NULL, 'track', 's3');
INSERT INTO public.audio_tasks VALUES (29, 't00', 'align', 'pending', NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-20 00:00:00+00', '2026-11-25 20:33:43.233919+00', NULL, 'track', 't00');
INSERT INTO public.audio_tasks VALUES (30, 't01', 'align', 'pending', NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-20 01:00:00+00', '2026-11-25 20:33:43.233919+00', NULL, 'track', 't01');
INSERT INTO public.audio_tasks VALUES (31, 't02', 'align', 'pending', NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-20 02:00:00+00', '2026-11-25 20:33:43.233919+00', NULL, 'track', 't02');
INSERT INTO public.audio_tasks VALUES (32, 't03', 'align', 'pending', NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-20 03:00:00+00', '2026-11-25 20:33:43.233919+00', NULL, 'track', 't03');
INSERT INTO public.audio_tasks VALUES (33, 't04', 'align', 'pending', NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-20 04:00:00+00', '2026-11-25 20:33:43.352516+00', NULL, 'track', 't04');
INSERT INTO public.audio_tasks VALUES (34, 't05', 'align', 'pending', NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-20 05:00:00+00', '2026-11-25 20:33:43.352516+00', NULL, 'track', 't05');
INSERT INTO public.audio_tasks VALUES (35, 't06', 'align', 'pending', NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-20 06:00:00+00', '2026-11-25 20:33:43.352516+00', NULL, 'track', 't06');
INSERT INTO public.audio_tasks VALUES (36, 't07', 'align', 'pending', NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL, NULL, '2026-11-20 07:00:00+00', '2026-11-25 20:33:43.352516+00', NULL, 'track', 't07');
INSERT INTO public.tracks VALUES ('t00', NULL, 'Song 0', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.005144+00', '2026-11-20 00:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t01', NULL, 'Song 1', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.014489+00', '2026-11-20 01:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t02', NULL, 'Song 2', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.015858+00', '2026-11-20 02:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t03', NULL, 'Song 3', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.021516+00', '2026-11-20 03:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t04', NULL, 'Song 4', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.024179+00', '2026-11-20 04:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t05', NULL, 'Song 5', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.025167+00', '2026-11-20 05:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t06', NULL, 'Song 6', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.03392+00', '2026-11-20 06:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t07', NULL, 'Song 7', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.034915+00', '2026-11-20 07:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t08', NULL, 'Song 8', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.03791+00', '2026-11-20 08:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t09', NULL, 'Song 9', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.038519+00', '2026-11-20 09:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t10', NULL, 'Song 10', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.038986+00', '2026-11-20 10:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t11', NULL, 'Song 11', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.039397+00', '2026-11-20 11:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t12', NULL, 'Song 12', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.03973+00', '2026-11-20 12:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t13', NULL, 'Song 13', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.040086+00', '2026-11-20 13:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t14', NULL, 'Song 14', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.049931+00', '2026-11-20 14:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t15', NULL, 'Song 15', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.050845+00', '2026-11-20 15:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t16', NULL, 'Song 16', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.051248+00', '2026-11-20 16:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t17', NULL, 'Song 17', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.051751+00', '2026-11-20 17:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t18', NULL, 'Song 18', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.052174+00', '2026-11-20 18:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t19', NULL, 'Song 19', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.05378+00', '2026-11-20 19:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t20', NULL, 'Song 20', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.054414+00', '2026-11-20 20:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t21', NULL, 'Song 21', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.060957+00', '2026-11-20 21:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t22', NULL, 'Song 22', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.061679+00', '2026-11-20 22:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('t23', NULL, 'Song 23', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'audio_ready', false, false, false, NULL, NULL, '2026-11-25 20:33:41.062174+00', '2026-11-20 23:00:00+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('s0', NULL, 'Stuck 0', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'aligned', false, false, false, NULL, NULL, '2026-11-25 20:33:41.062559+00', '2026-11-25 20:33:41.062559+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('s1', NULL, 'Stuck 1', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'aligned', false, false, false, NULL, NULL, '2026-11-25 20:33:41.069907+00', '2026-11-25 20:33:41.069907+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('s2', NULL, 'Stuck 2', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'aligned', false, false, false, NULL, NULL, '2026-11-25 20:33:41.070788+00', '2026-11-25 20:33:41.070788+00', 'tiktok', NULL);
INSERT INTO public.tracks VALUES ('s3', NULL, 'Stuck 3', '[]', NULL, NULL, NULL, NULL, NULL, NULL, 'aligned', false, false, false, NULL, NULL, '2026-11-25 20:33:41.071283+00', '2026-11-25 20:33:41.071283+00', 'tiktok', NULL);
INSERT INTO queue_insights.batches VALUES (1, 1, 'translate', 1, '2026-11-25 20:33:42.410508+00', '{25,26,27,28}', '{-1022725284336993572,4059379845650105036,-5586802733334521686,3550319366206146830}', '[{"id": 25, "status": "running", "attempts": 2, "completed_at": null, "max_attempts": 3, "next_retry_at": null, "processing_duration_ms": null}, {"id": 26, "status": "running", "attempts": 2, "completed_at": null, "max_attempts": 3, "next_retry_at": null, "processing_duration_ms": null}, {"id": 27, "status": "running", "attempts": 2, "completed_at": null, "max_attempts": 3, "next_retry_at": null, "processing_duration_ms": null}, {"id": 28, "status": "running", "attempts": 2, "completed_at": null, "max_attempts": 3, "next_retry_at": null, "processing_duration_ms": null}]', '[]', NULL, NULL);
INSERT INTO queue_insights.batches VALUES (2, 1, 'align', 1, '2026-11-25 20:33:43.233919+00', '{29,30,31,32}', '{6942310611721119604,3137897589833018961,-999805865425140533,-7143574711460480238}', NULL, '[]', NULL, NULL);
INSERT INTO queue_insights.batches VALUES (2, 2, 'align', 1, '2026-11-25 20:33:43.352516+00', '{33,34,35,36}', '{6112702745781938804,-9084486981913189178,7398225784024261785,4604436924677999567}', NULL, '[]', NULL, NULL);
INSERT INTO queue_insights.runs OVERRIDING SYSTEM VALUE VALUES (1, 'karaoke', '7e79f00d650e', 'b', 'reset', '{"error": null, "limit": null, "tasks": null, "status": "pending", "attempts": "refund", "older_than": null}', '{"clip": 0, "align": 0, "enhance": 0, "segment": 0, "download": 0, "separate": 0, "translate": 4}', 'finished', false, 1, 'postgres', 'elsewhere', 1, '2026-11-25 20:33:41.922462+00', '2026-11-25 20:33:42.541326+00', '2026-11-25 20:33:42.577703+00', 4, 4, 0, 0, 0, 0, NULL);
INSERT INTO queue_insights.runs OVERRIDING SYSTEM VALUE VALUES (2, 'karaoke', '7e79f00d650e', 'b', 'backfill', '{"error": null, "limit": null, "tasks": ["align"], "status": "pending", "attempts": "refund", "older_than": null}', '{"align": 24}', 'running', false, 1, 'postgres', 'elsewhere', 1, '2026-11-25 20:33:43.107751+00', '2026-11-25 20:33:43.364097+00', NULL, 24, 8, 0, 0, 0, 0, NULL);
INSERT INTO queue_insights.targets VALUES (2, 2, 'align', 1, '{t08,t09,t10,t11}', '{"2026-11-20 08:00:00+00","2026-11-20 09:00:00+00","2026-11-20 10:00:00+00","2026-11-20 11:00:00+00"}');
INSERT INTO queue_insights.targets VALUES (2, 3, 'align', 1, '{t12,t13,t14,t15}', '{"2026-11-20 12:00:00+00","2026-11-20 13:00:00+00","2026-11-20 14:00:00+00","2026-11-20 15:00:00+00"}');
INSERT INTO queue_insights.targets VALUES (2, 4, 'align', 1, '{t16,t17,t18,t19}', '{"2026-11-20 16:00:00+00","2026-11-20 17:00:00+00","2026-11-20 18:00:00+00","2026-11-20 19:00:00+00"}');
INSERT INTO queue_insights.targets VALUES (2, 5, 'align', 1, '{t20,t21,t22,t23}', '{"2026-11-20 20:00:00+00","2026-11-20 21:00:00+00","2026-11-20 22:00:00+00","2026-11-20 23:00:00+00"}');
SELECT pg_catalog.setval('public.audio_tasks_id_seq', 43, true);
SELECT pg_catalog.setval('queue_insights.runs_run_seq', 2, true);
ALTER TABLE ONLY public.audio_tasks
    ADD CONSTRAINT audio_tasks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.audio_tasks
    ADD CONSTRAINT audio_tasks_subject_task_key UNIQUE (subject_type, subject_id, task_type);
ALTER TABLE ONLY public.tracks
    ADD CONSTRAINT tracks_pkey PRIMARY KEY (spotify_track_id);
ALTER TABLE ONLY public.tracks
    ADD CONSTRAINT tracks_tiktok_video_id_key UNIQUE (tiktok_video_id);
ALTER TABLE ONLY queue_insights.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (run, batch);
ALTER TABLE ONLY queue_insights.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (run);
ALTER TABLE ONLY queue_insights.targets
    ADD CONSTRAINT targets_pkey PRIMARY KEY (run, chunk);
CREATE INDEX audio_tasks_spotify_track_id_idx ON public.audio_tasks USING btree (spotify_track_id);
CREATE INDEX audio_tasks_task_type_status_idx ON public.audio_tasks USING btree (task_type, status) WHERE (status = ANY (ARRAY['pending'::text, 'failed'::text]));
CREATE INDEX tracks_stage_idx ON public.tracks USING btree (stage) WHERE (stage <> ALL (ARRAY['ready'::text, 'failed'::text]));
CREATE UNIQUE INDEX runs_one_unfinished ON queue_insights.runs USING btree (pipeline, action) WHERE (state = 'running'::text);
CREATE TRIGGER audio_tasks_set_updated_at BEFORE UPDATE ON public.audio_tasks FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
CREATE TRIGGER queue_insights_tracks_to_audio_tasks_insert AFTER INSERT ON public.tracks FOR EACH ROW WHEN ((new.stage = ANY (ARRAY['lyrics_acquired'::text, 'audio_ready'::text, 'aligned'::text, 'translated'::text, 'separated'::text, 'segmented'::text, 'enhanced'::text]))) EXECUTE FUNCTION public.queue_insights_tracks_to_audio_tasks();
CREATE TRIGGER queue_insights_tracks_to_audio_tasks_update AFTER UPDATE OF stage ON public.tracks FOR EACH ROW WHEN (((old.stage IS DISTINCT FROM new.stage) AND (new.stage = ANY (ARRAY['lyrics_acquired'::text, 'audio_ready'::text, 'aligned'::text, 'translated'::text, 'separated'::text, 'segmented'::text, 'enhanced'::text])))) EXECUTE FUNCTION public.queue_insights_tracks_to_audio_tasks();
CREATE TRIGGER tracks_set_updated_at BEFORE UPDATE ON public.tracks FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
ALTER TABLE ONLY public.audio_tasks
    ADD CONSTRAINT audio_tasks_spotify_track_id_fkey FOREIGN KEY (spotify_track_id) REFERENCES public.tracks(spotify_track_id) ON DELETE CASCADE;
ALTER TABLE ONLY queue_insights.batches
    ADD CONSTRAINT batches_run_fkey FOREIGN KEY (run) REFERENCES queue_insights.runs(run) ON DELETE CASCADE;
ALTER TABLE ONLY queue_insights.targets
    ADD CONSTRAINT targets_run_fkey FOREIGN KEY (run) REFERENCES queue_insights.runs(run) ON DELETE CASCADE;
REVOKE ALL ON FUNCTION public.queue_insights_tracks_to_audio_tasks() FROM PUBLIC;
