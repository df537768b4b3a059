"""Queues of jobs, by a pipeline file: one of nobody's that is described in 15 lines."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import cases
from letters import FILE, MINUTE, RETRY, Letters, letters
from queue_insights import pipeline
from queue_insights.errors import InputError, PlanError
from queue_insights.reads import STATES
from vendors import VENDORS

__all__ = ["letters"]  # a fixture


def state_of(row: dict[str, Any], now: datetime) -> str:
    """The states as they are defined: the file's words, refined by time and attempts."""
    if row["state"] in ("new", "again"):
        if row["max_tries"] is None or row["tries"] >= row["max_tries"]:
            return "exhausted"
        if row["due"] is not None and row["due"] > now:
            return "backing_off"
        return {"new": "pending", "again": "retryable"}[row["state"]]
    if row["state"] == "busy":
        alive = row["begun"] is not None and abs(now - row["begun"]) <= 30 * MINUTE
        return "running" if alive else "stuck"
    return {"dead": "exhausted", "void": "skipped"}.get(row["state"], "other")


TIMES = st.sampled_from([None, -90 * MINUTE, -5 * MINUTE, 5 * MINUTE, timedelta(days=40)])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "sort": st.sampled_from(["bills", 'ca"rds', "it's"]),
            "state": st.sampled_from(["new", "again", "busy", "ok", "dead", "void", "odd", None]),
            **{"tries": st.integers(0, 3), "max_tries": st.sampled_from([None, 1, 3])},
            **{"due": TIMES, "begun": TIMES},
        }
    ),
    max_size=12,
)


@cases(5)
@given(rows=ROWS, type=st.sampled_from(["letter_state", "text"]))
def test_jobs_are_in_the_states_of_their_definition(
    letters: Letters, rows: list[Any], type: str
) -> None:
    letters.sql("TRUNCATE letter; ALTER TABLE letter ALTER state DROP NOT NULL")
    letters.sql(f"ALTER TABLE letter ALTER state TYPE {type} USING state::text::{type}")
    now, queue = datetime.now(UTC), letters.queue()
    expected: Counter[tuple[str, str]] = Counter()
    for row in rows:
        times = {name: row[name] and now + row[name] for name in ("due", "begun")}
        row |= times | {"made": now.replace(tzinfo=None) - 60 * MINUTE}
        letters.add(**row)
        if row["state"] != "ok":
            expected[row["sort"], state_of(row, now)] += 1
    backlog = queue.backlog()
    assert backlog["task_type"].tolist() == sorted({sort for sort, _ in expected})
    found = {
        (record["task_type"], state): record[state]
        for record in backlog.to_dict("records")
        for state in STATES
        if record[state]
    }
    assert found == dict(expected)
    assert backlog["total"].sum() == sum(expected.values())
    waiting = ["pending", "retryable", "backing_off"]
    assert (backlog[waiting].sum(axis=1) == backlog["waiting"]).all()
    listed = queue.tasks()
    assert Counter(zip(listed["task_type"], listed["state"], strict=True)) == expected
    upcoming = queue.upcoming(limit=None)
    assert len(upcoming) == backlog["eligible"].sum()
    assert upcoming["arrived_at"].is_monotonic_increasing


def test_retry_takes_the_very_jobs_of_its_plan(letters: Letters) -> None:
    first, second, third = (str(letters.add("bills", "dead", tries=3)) for _ in range(3))
    letters.add("bills", "again", tries=1)
    queue = letters.queue()
    plan = queue.plan_retry()
    assert plan.rows == 3
    letters.add("cards", "dead", tries=3)
    with pytest.raises(PlanError, match="not what was planned"):
        plan.apply(confirm=plan.token)
    chosen = queue.plan_retry(ids=[first, second, "no id", "4"])
    assert chosen.left_out()["reason"].tolist() == [
        "there is no such job, or it is completed",
        "bills is retryable",
    ]
    run = chosen.apply(confirm=chosen.token)
    assert (run.row["rows_done"], run.row["rows_dropped"], run.state) == (2, 0, "finished")
    states = dict(letters.sql("SELECT id::text, state::text FROM letter").fetchall())
    assert states == {first: "new", second: "new", third: "dead", "4": "again", "5": "dead"}
    with pytest.raises(InputError, match="no way back"):
        run.undo()
    assert queue.plan_retry(ids=[]).rows == 0


def test_a_retry_that_another_made_meanwhile_is_not_made_again(letters: Letters) -> None:
    """Between the list of the jobs and their batch, the queue's own worker may take one."""
    first, _ = (letters.add("bills", "dead", tries=3) for _ in range(2))
    taken = RETRY.replace("state = 'dead'", f"state = 'dead' AND id <> {first}")
    plan = letters.queue(FILE + taken).plan_retry()
    run = plan.apply(confirm=plan.token)
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (1, 1)
    (dropped,) = run.dropped().to_dict("records")
    assert (dropped["id"], dropped["reason"]) == (str(first), "it is exhausted no more")


def test_doctor_says_which_known_queues_a_database_holds(letters: Letters) -> None:
    letters.sql(
        "CREATE TABLE que_jobs (); CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.oban_jobs ()"
    )
    said = "\n".join(letters.said("doctor"))
    assert "public.que_jobs: queue-insights backlog --pipeline que" in said
    assert "PGOPTIONS='-c search_path=elsewhere' queue-insights backlog --pipeline oban" in said
    assert "river" not in said


def test_every_shipped_file_of_another_queue_loads_and_is_tested() -> None:
    names = {*pipeline.shipped_pipelines()} - {"karaoke"}
    assert names == {name for name in VENDORS if not name.endswith("10")}
    assert [pipeline.load(name).name for name in names] == [*names]
    assert len(FILE.splitlines()) <= 15


def test_the_worked_example_of_the_docs_works(letters: Letters) -> None:
    page = (pipeline.shipped("params").parent / "docs" / "queues.md").read_text("utf-8")
    (table,) = re.findall(r"(?ms)^```sql\n(.*?)^```", page)
    (file,) = re.findall(r"(?ms)^```yaml\n(.*?)^```", page)
    letters.sql(
        f"DROP TABLE letter; {table}"
        "INSERT INTO printer VALUES ('laser', now() - interval '1 minute');"
        "INSERT INTO letter (sort, state, printer, begun) VALUES"
        " ('bills', 'printing', 'laser', now() - interval '1 hour'),"
        " ('bills', 'printing', NULL, NULL), ('cards', 'spoilt', NULL, NULL)"
    )
    letters.said("doctor", file)
    backlog = letters.queue(file).backlog().set_index("task_type")
    assert backlog[["running", "stuck", "exhausted"]].to_numpy().tolist() == [[1, 1, 0], [0, 0, 1]]
    lines = "\n".join(letters.said("retry --apply --max-rows 1", file))
    assert "1 rows done" in lines
    assert "undo" not in lines  # there is no way back
    assert letters.queue(file).backlog()["pending"].sum() == 1
    letters.said("eta", file)


def test_a_report_says_of_letters_what_it_can_and_why_it_cannot_the_rest(
    letters: Letters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        letters.add("bills", "new", made=datetime(2026, 1, 1))
    letters.add("cards", "dead", tries=3)
    monkeypatch.chdir(tmp_path)
    text = (FILE + RETRY).replace("  error: problem\n", "").replace("  finished_at: done\n", "")
    lines = letters.said("report backlog_report", text)
    assert lines[-2].startswith("3 letters wait; 1 exhausted will not move by itself")
    page = Path(lines[-1]).read_text("utf-8")
    for reason in ("a job is its own row", "it keeps no error text", "when a job was done"):
        assert reason in page
    assert f"queue-insights retry --pipeline {letters.file}" in page
