-- The incident, last part, in variant B: the task rows, each with its subject, and what only this
-- variant holds, in task types that are no step of the pipeline file.

INSERT INTO audio_tasks SELECT seed_task_rows.*, 'track', spotify_track_id FROM seed_task_rows;

-- Quizzes and trivia, of the last days' translated tracks and of those that stand at these stages.
INSERT INTO audio_tasks (id, spotify_track_id, task_type, status, attempts, last_attempt_at,
    processing_duration_ms, created_at, updated_at, completed_at, subject_id)
SELECT last_id + row_number() OVER (ORDER BY created, task_type, item),
       track_id, task_type, status, (status <> 'pending')::int,
       CASE WHEN status <> 'pending' THEN created END,
       CASE status WHEN 'completed' THEN 9000 END,
       created,
       CASE status WHEN 'completed' THEN created + interval '9 seconds' ELSE created END,
       CASE status WHEN 'completed' THEN created + interval '9 seconds' END,
       track_id
FROM (
    SELECT item, task_type, pg_temp.track_id(item) AS track_id,
           pg_temp.at_ms(ended) + make_interval(secs => 20 * turn) AS created,
           CASE WHEN kind = 'elsewhere' AND place % 2 = 0 AND turn = 2
                    THEN (ARRAY['pending', 'running', 'failed'])[1 + place / 2 % 3]
                WHEN item % 9 = 0 AND turn = 2 THEN 'skipped'
                ELSE 'completed' END AS status
    FROM seed_plan
    JOIN seed_history USING (item)
    CROSS JOIN seed_parameters
    CROSS JOIN (VALUES ('translation_quiz', 1), ('trivia', 2)) AS quizzes (task_type, turn)
    WHERE seed_history.step = 3
      AND (kind = 'elsewhere' OR kind IS NULL AND item > tracks * 0.9)
) AS quizzes
CROSS JOIN (SELECT max(id) AS last_id FROM audio_tasks) AS ids;

-- Videos. None of these is ours: whoever counts, changes or deletes one is wrong.
INSERT INTO audio_tasks (id, task_type, status, attempts, last_attempt_at, processing_duration_ms,
    created_at, updated_at, completed_at, subject_type, subject_id)
SELECT last_id + row_number() OVER (ORDER BY created, video, task_type),
       task_type, status, (status NOT IN ('pending', 'skipped'))::int,
       CASE WHEN status NOT IN ('pending', 'skipped') THEN created END,
       CASE status WHEN 'completed' THEN 30000 END,
       created,
       CASE status WHEN 'completed' THEN created + interval '30 seconds' ELSE created END,
       CASE status WHEN 'completed' THEN created + interval '30 seconds' END,
       'tiktok_video', (7300000000000000000 + video * 271828182845)::text
FROM (
    SELECT video, task_type,
           pg_temp.at_ms(extract(epoch FROM anchor)::float8
               - 86400 * 20 * (1 - video::float8 / videos) - 600 * (5 - turn)) AS created,
           CASE WHEN video % 20 = 19 AND turn = 4 THEN 'pending'
                WHEN video % 25 = 24 AND turn > 1 THEN 'failed'
                WHEN video % 40 = 39 AND turn = 3 THEN 'running'
                WHEN video % 15 = 14 AND turn = 3 THEN 'skipped'
                ELSE 'completed' END AS status
    FROM (SELECT anchor, greatest(60, tracks / 50) AS videos FROM seed_parameters) AS counted,
         generate_series(0, videos - 1) AS video,
         (VALUES ('video_download', 1), ('video_transcribe', 2), ('video_translate', 3),
                 ('video_encrypt', 4)) AS steps (task_type, turn)
) AS videos
CROSS JOIN (SELECT max(id) AS last_id FROM audio_tasks) AS ids;
