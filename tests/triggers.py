"""What the tests of triggers share: the name of ours, and those that an application may have."""

from conftest import Bench

FUNCTION = "queue_insights_tracks_to_audio_tasks"
# As the field had it, twice: one IF per stage, no WHEN.
FIELD = """
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.stage = 'audio_ready' AND OLD.stage != 'audio_ready' THEN
            INSERT INTO audio_tasks ({columns}) VALUES ({values}) {conflict};
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER {name} AFTER UPDATE ON tracks FOR EACH ROW EXECUTE FUNCTION {name}()
"""


def field_trigger(bench: Bench, name: str, conflict: str = "ON CONFLICT DO NOTHING") -> None:
    columns, values = "spotify_track_id, task_type", "NEW.spotify_track_id, 'align'"
    if bench.variant == "b":
        columns, values = f"{columns}, subject_id", f"{values}, NEW.spotify_track_id"
    bench.sql(FIELD.format(name=name, columns=columns, values=values, conflict=conflict))
