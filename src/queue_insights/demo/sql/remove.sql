-- What an earlier seed made, and what its users made of it.
DROP SCHEMA IF EXISTS queue_insights CASCADE;
DROP TABLE IF EXISTS audio_tasks, tracks CASCADE;
DROP FUNCTION IF EXISTS set_updated_at();
