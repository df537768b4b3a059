-- The incident, last part, in variant A: the task rows.

INSERT INTO audio_tasks SELECT * FROM seed_task_rows;
