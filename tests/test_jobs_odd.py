"""Queues of jobs in tables that nobody would make, described by files that somebody might write."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from letters import FILE, RETRY, Letters, letters
from queue_insights.errors import InputError

__all__ = ["letters"]  # a fixture

LETTER = "from: letter"


@pytest.mark.parametrize("name", ["standing", "step", "gone", "todo"])
def test_a_table_may_have_a_name_that_our_own_sql_uses(letters: Letters, name: str) -> None:
    letters.add("bills", "ok", done=datetime.now(UTC))
    letters.add("bills", "dead", done=datetime.now(UTC))
    letters.add("cards", "new")
    letters.sql(f"ALTER TABLE letter RENAME TO {name}")
    text = FILE.replace(LETTER, f"from: {name}") + RETRY.replace("UPDATE letter", f"UPDATE {name}")
    queue = letters.queue(text)
    assert queue.backlog()["total"].tolist() == [1, 1]
    assert queue.throughput("1D", "1D")["completions"].sum() == 1
    assert queue.flow("1D", "1D").iloc[-2:]["left"].tolist() == [1, 0]
    assert queue.eta()["waiting"].tolist() == [0, 1]
    plan = queue.plan_retry()
    assert plan.apply(confirm=plan.token).row["rows_done"] == 1


def test_an_enum_that_has_our_words_needs_no_states(letters: Letters) -> None:
    letters.sql(
        "CREATE TYPE stand AS ENUM ('pending', 'running', 'completed', 'torn');"
        "ALTER TABLE letter ALTER state TYPE stand USING NULL, ALTER state DROP NOT NULL"
    )
    for state in ("pending", "completed", "torn", None):
        letters.add("bills", state, done=datetime.now(UTC) if state == "completed" else None)
    queue = letters.queue(FILE.partition("states:")[0])
    (row,) = queue.backlog().to_dict("records")
    assert (row["total"], row["pending"], row["other"]) == (3, 1, 2)
    assert queue.throughput("1D", "1D")["completions"].sum() == 1
    assert queue.durations()["completions"].tolist() == [1]


@pytest.mark.parametrize("type", ["character(3)", "uuid", "text", "numeric"])
def test_retry_takes_ids_of_any_type_and_length(letters: Letters, type: str) -> None:
    made = {"uuid": "gen_random_uuid()", "text": "E'a\\'b,{\"%s:x\\\\' || n"}.get(type, "n")
    letters.sql(
        f"ALTER TABLE letter DROP id; ALTER TABLE letter ADD id {type} PRIMARY KEY;"
        "INSERT INTO letter (id, sort, state, tries)"
        f" SELECT ({made})::{type}, 'bills', 'dead', 3 FROM generate_series(101, 103) AS n"
    )
    queue = letters.queue()
    first = str(queue.tasks()["id"].iloc[0])
    plan = queue.plan_retry(ids=[first])
    assert plan.apply(confirm=plan.token).row["rows_done"] == 1
    assert queue.tasks(state="pending")["id"].astype(str).tolist() == [first]


def test_kinds_that_come_and_go_do_not_make_a_token_stale(letters: Letters) -> None:
    letters.add("bills", "dead", tries=3)
    letters.add("cards", "new")
    plan = letters.queue().plan_retry()
    letters.sql("DELETE FROM letter WHERE sort = 'cards'")
    for kind in ("adverts", "zines"):
        letters.add(kind, "new")
    assert plan.apply(confirm=plan.token).row["rows_done"] == 1


def test_a_retry_of_what_was_not_asked_is_taken_back_and_of_one_twice_is_one(
    letters: Letters,
) -> None:
    first, _ = (letters.add("bills", "dead", tries=3) for _ in range(2))
    before = letters.rows()
    greedy = RETRY.replace("id = ANY (:ids) AND state = 'dead'", "state = 'dead'")
    for text in (greedy, RETRY.replace("RETURNING id", "RETURNING NULL")):
        plan = letters.queue(FILE + text).plan_retry(ids=[str(first)])
        with pytest.raises(InputError, match=r"actions\.retry .* not given"):
            plan.apply(confirm=plan.token)
        assert letters.rows() == before
    twice = "SELECT letter.id FROM letter, generate_series(1, 2) WHERE id = ANY (:ids)"
    plan = letters.queue(f"{FILE}actions: {{retry: '{twice}'}}\n").plan_retry(ids=[str(first)])
    assert plan.apply(confirm=plan.token).row["rows_done"] == 1


@pytest.mark.proof
def test_an_empty_queue_and_one_in_which_all_is_done_are_no_fault(
    letters: Letters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for done in (0, 1):
        if done:
            letters.add("bills", "ok", made="2026-01-01", begun="infinity", done="2026-01-02")
        for command in ("backlog", "eta", "durations", "retry", "retry --apply --max-rows 0"):
            letters.said(command)
        assert len(letters.queue().backtest()) == 0
        assert letters.said("report throughput_eta")[-2] == "No letter waits."
    letters.said("report explore -p task bills")


def test_history_is_wherever_its_file_says_if_it_is_there(letters: Letters) -> None:
    letters.sql(
        'CREATE SCHEMA "Old Mail";'
        'CREATE TABLE "Old Mail"."All Letters" (LIKE letter INCLUDING DEFAULTS);'
        'INSERT INTO "Old Mail"."All Letters" (id, sort, state, done, made)'
        " VALUES (99, 'bills', 'ok', now(), now())"
    )
    letters.add("bills", "ok", made="2026-01-01", done=datetime.now(UTC))
    old = """letter, '"Old Mail"."All Letters" AS l', 'ONLY nowhere', nowhere.letter"""
    queue = letters.queue(f"{FILE}history: {{from: [{old}]}}\n")
    assert queue.throughput("1D", "1D")["completions"].sum() == 2
    assert queue.track("99")["status"].tolist() == ["ok"]
