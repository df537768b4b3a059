-- The incident, last part, in variant A: the task rows.

INSERT INTO audio_tasks SELECT * FROM seed_task_rows;

SELECT pg_temp.restore_keys();
SELECT setval(pg_get_serial_sequence('audio_tasks', 'id'), max(id)) FROM audio_tasks;
