"""Actions beside worker processes, which tell every error they met; every change is recorded."""

import pytest

from conftest import Bench
from operating import STUCK, give_rows, many, operable, rows, small_batches, video
from queue_insights.actions import pace
from workers import STEPS, crew

pytestmark = pytest.mark.proof
# What the application's own way of working can raise beside any action (the README names them).
EXPECTED = {("ensure", "23505"), ("start", "gone")}
# Every change of a task row, by whom, with the stage that its track had.
RECORD = """
    CREATE TABLE changes (who text, what text, old jsonb, new jsonb, stage text);
    CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO changes
        VALUES (current_setting('application_name'), TG_OP,
                CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
                CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END,
                (SELECT stage FROM tracks WHERE spotify_track_id = CASE TG_OP
                    WHEN 'DELETE' THEN OLD.spotify_track_id ELSE NEW.spotify_track_id END));
        RETURN NULL;
    END $$;
    CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON audio_tasks
        FOR EACH ROW EXECUTE FUNCTION record();
"""
STAGES = ("lyrics_acquired", "audio_ready", "aligned", "translated")


@pytest.fixture
def live(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A queue with work of every kind, and batches small enough to be many."""
    monkeypatch.setattr(pace, "REST", 1.0)
    small_batches(monkeypatch, chunk=10, first=2, largest=10)
    for stage in STAGES:
        many(bench, stage, 150, prefix=stage)
    give_rows(bench, many(bench, "audio_ready", 50, "stuck"), "align", "running", **STUCK)
    give_rows(bench, many(bench, "aligned", 50, "out"), "translate", "failed", attempts="3")
    give_rows(bench, many(bench, "translated", 50, "orphan"), "download", "pending")
    video(bench, "align", "running")
    video(bench, "align", "pending")
    bench.connection.execute(RECORD)
    return bench


def made_by_actions(bench: Bench) -> None:
    """What DESIGN section 6 allows, over the record of all that we changed."""
    ((then,),) = bench.sql("SELECT to_jsonb(now() - interval '30 minutes')")
    made = bench.sql("SELECT what, old, new, stage FROM changes WHERE who = 'queue-insights'")
    assert {"INSERT", "UPDATE", "DELETE"} == {what for what, *_ in made}
    for what, old, new, stage in made:
        assert (new or old).get("subject_type", "track") == "track"
        if what == "INSERT":
            assert new["status"] in ("pending", "failed")
            assert STEPS.get(stage) == new["task_type"]
        elif what == "DELETE":
            assert old["status"] == "pending"
        else:
            assert old["status"] != "completed"
            if old["status"] == "running":
                assert old["last_attempt_at"] < then
                assert new["status"] == "pending"
            if new["status"] == "running":
                assert old["status"] == "pending"  # a reset undone: as it was, nobody at work on it


def test_no_worker_meets_an_error_that_is_not_its_own_while_all_actions_run(live: Bench) -> None:
    queue = operable(live.url)
    kept: list[int] = []
    with crew(live.url, live.variant, 3, stages=STAGES) as met:
        for _ in range(2):
            for plan in (queue.plan_backfill, queue.plan_reset, queue.plan_retry):
                run = plan().apply(max_rows=9999)
                assert run.state == "finished"
                run.undo()
                kept.append(run.row["rows_kept"])
            queue.plan_prune(tasks="download").apply(max_rows=9999)
        backfill = queue.plan_backfill(tasks=["align", "translate"]).apply(max_rows=9999)
        assert backfill.state == "finished"
    assert {tuple(error) for worker in met for error in worker["errors"]} <= EXPECTED
    assert all(worker["completed"] > 10 for worker in met)
    assert sum(kept) > 0  # some moved on between a run and its undo, or this has shown nothing
    made_by_actions(live)
    assert not live.sql(
        "SELECT 1 FROM audio_tasks WHERE spotify_track_id IS NOT NULL "
        "GROUP BY spotify_track_id, task_type HAVING count(*) > 1"
    )
    videos = [row for row in rows(live.connection).values() if "tiktok_video" in row]
    assert len(videos) == (2 if live.variant == "b" else 0)
