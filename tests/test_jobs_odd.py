"""Queues of jobs in tables that nobody would make, described by files that somebody might write."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from letters import FILE, MINUTE, RETRY, Letters, letters
from queue_insights.cli import main
from queue_insights.database import READ_URL
from queue_insights.errors import InputError
from queue_insights.summary import before_and_after

__all__ = ["letters"]  # a fixture

LETTER = "from: letter"


@pytest.mark.parametrize("name", ["standing", "step", "finished", "gone", "open_job", "todo"])
def test_a_table_may_have_a_name_that_our_own_sql_uses(letters: Letters, name: str) -> None:
    letters.connection.execute(f"ALTER TABLE letter RENAME TO {name}")
    letters.connection.execute(
        f"INSERT INTO {name} (sort, state, done) VALUES ('bills', 'ok', now()), "
        "('bills', 'dead', now()), ('cards', 'new', NULL)"
    )
    text = FILE.replace(LETTER, f"from: {name}") + RETRY.replace("UPDATE letter", f"UPDATE {name}")
    queue = letters.queue(text)
    assert queue.backlog()["total"].tolist() == [1, 1]
    assert queue.throughput("1D", "1D")["completions"].sum() == 1
    assert queue.durations("1D")["completions"].tolist() == [1, 0]
    assert queue.flow("1D", "1D").iloc[-2:]["left"].tolist() == [1, 0]
    assert queue.eta()["waiting"].tolist() == [0, 1]
    assert queue.track("1")["status"].tolist() == ["ok"]
    plan = queue.plan_retry()
    assert plan.apply(confirm=plan.token).row["rows_done"] == 1


def test_a_job_without_a_status_is_shown_as_other_whatever_the_type(letters: Letters) -> None:
    letters.connection.execute("ALTER TABLE letter ALTER state DROP NOT NULL")
    letters.connection.execute("INSERT INTO letter (sort) VALUES ('bills')")
    for type in ("letter_state", "text"):
        letters.connection.execute(f"ALTER TABLE letter ALTER state TYPE {type}")
        queue = letters.queue()
        assert queue.backlog()["other"].tolist() == [1], type
        assert queue.track("1")["state"].tolist() == ["other"]


def test_an_enum_that_has_our_words_needs_no_states(letters: Letters) -> None:
    letters.connection.execute(
        "CREATE TYPE stand AS ENUM ('pending', 'running', 'completed', 'torn');"
        "ALTER TABLE letter ALTER state TYPE stand USING NULL, ALTER state DROP NOT NULL;"
        "INSERT INTO letter (sort, state, max_tries, done) VALUES ('bills', 'pending', 3, NULL),"
        " ('bills', 'completed', 3, now()), ('bills', 'torn', 3, NULL), ('bills', NULL, 3, NULL)"
    )
    queue = letters.queue(FILE.partition("states:")[0])
    (row,) = queue.backlog().to_dict("records")
    assert (row["total"], row["pending"], row["other"]) == (3, 1, 2)
    assert queue.throughput("1D", "1D")["completions"].sum() == 1
    assert queue.durations()["completions"].tolist() == [1]


def test_a_maximum_without_attempts_leaves_attempts(letters: Letters) -> None:
    letters.add("bills", "new")
    queue = letters.queue(FILE.replace("  attempts: tries\n", ""))
    assert queue.backlog()["pending"].tolist() == [1]


@pytest.mark.parametrize("type", ["character(3)", "uuid", "text", "numeric"])
def test_retry_takes_ids_of_any_type_and_length(letters: Letters, type: str) -> None:
    made = {"uuid": "gen_random_uuid()", "text": "E'a\\'b,{\"%s:x\\\\' || n"}.get(type, "n")
    letters.connection.execute(
        "ALTER TABLE letter DROP id; "
        f"ALTER TABLE letter ADD id {type} PRIMARY KEY;"
        "INSERT INTO letter (id, sort, state, tries)"
        f" SELECT ({made})::{type}, 'bills', 'dead', 3 FROM generate_series(101, 103) AS n"
    )
    queue = letters.queue()
    first = str(queue.tasks()["id"].iloc[0])
    plan = queue.plan_retry(ids=[first])
    assert plan.apply(confirm=plan.token).row["rows_done"] == 1
    assert queue.tasks(state="pending")["id"].astype(str).tolist() == [first]


@pytest.mark.parametrize("id", ["no id", "", "9" * 30])
def test_an_id_that_its_type_cannot_be_is_bad_input(letters: Letters, id: str) -> None:
    code, lines = letters.run("track", id)
    assert (code, len(lines)) == (2, 1), lines
    assert repr(id) in lines[0]


def test_a_comment_ends_with_its_line(letters: Letters) -> None:
    """And hides nothing of what stands behind it: completed jobs are of no open kind."""
    letters.add("cards", "ok", made="2026-01-01")
    letters.add("bills", "new")
    text = FILE.replace(LETTER, 'from: "letter -- of all"').replace("id: id", 'id: "id -- a key"')
    commented = RETRY.replace("RETURNING id", "RETURNING id -- whatever")
    code, lines = letters.run("doctor", text=text + commented)
    assert code == 0
    assert any("one kind: bills" in line for line in lines), lines
    assert letters.run("retry", text=text + commented)[0] == 0


def test_kinds_that_come_and_go_do_not_make_a_token_stale(letters: Letters) -> None:
    letters.add("bills", "dead", tries=3)
    passing = letters.add("cards", "new")
    queue = letters.queue()
    plan = queue.plan_retry()
    letters.connection.execute("DELETE FROM letter WHERE id = %s", [passing])
    letters.add("adverts", "new")
    letters.add("zines", "new")
    assert plan.apply(confirm=plan.token).row["rows_done"] == 1


@pytest.mark.parametrize(
    ("retry", "said"),
    [
        ("UPDTE letter", 'syntax error at or near "UPDTE"'),
        ("UPDATE letter SET state = 'nwe' WHERE id = ANY (:ids) RETURNING id", "'nwe'"),
        ("UPDATE letter SET state = 'new' WHERE id = ANY (:ids)", "RETURNING"),
        ("UPDATE lettre SET state = 'new' WHERE id = ANY (:ids) RETURNING id", "lettre"),
        ("SELECT id FROM letter WHERE id = ANY (:ids); DROP TABLE letter", ";"),
    ],
)
def test_a_broken_way_to_retry_is_one_line_before_anything_is_done(
    letters: Letters, retry: str, said: str
) -> None:
    letters.add("bills", "dead", tries=3)
    text = FILE + f"actions:\n  retry: {retry!r}\n".replace("\\'", "'")
    code, lines = letters.run("retry", "--apply", "--max-rows", "9", text=text)
    assert (code, len(lines)) == (2, 1), lines
    assert "actions.retry" in lines[0]
    assert said.strip("'") in lines[0]
    assert not letters.queue().runs().shape[0]


def test_a_retry_of_jobs_that_were_not_asked_for_is_taken_back(letters: Letters) -> None:
    first, _ = (letters.add("bills", "dead", tries=3) for _ in range(2))
    before = letters.rows()
    greedy = RETRY.replace("id = ANY (:ids) AND state = 'dead'", "state = 'dead'")
    for text in (greedy, RETRY.replace("RETURNING id", "RETURNING NULL")):
        plan = letters.queue(FILE + text).plan_retry(ids=[str(first)])
        with pytest.raises(InputError, match=r"actions\.retry .* not given"):
            plan.apply(confirm=plan.token)
        assert letters.rows() == before


def test_a_job_that_is_said_twice_to_be_retried_counts_once(letters: Letters) -> None:
    letters.add("bills", "dead", tries=3)
    twice = "SELECT letter.id FROM letter, generate_series(1, 2) WHERE id = ANY (:ids)"
    plan = letters.queue(f"{FILE}actions: {{retry: '{twice}'}}\n").plan_retry()
    assert plan.apply(confirm=plan.token).row["rows_done"] == 1


def test_no_way_back_is_offered_where_there_is_none(letters: Letters) -> None:
    letters.add("bills", "dead", tries=3)
    code, lines = letters.run("retry", "--apply", "--max-rows", "1")
    assert code == 0
    assert "1 rows done" in "\n".join(lines)
    assert "undo" not in "\n".join(lines)


@pytest.mark.parametrize("right", ["SELECT", "a policy"])
def test_what_a_role_may_not_see_is_the_databases_to_say(letters: Letters, right: str) -> None:
    letters.add("bills", "new")
    letters.connection.execute("DROP ROLE IF EXISTS letter_reader; CREATE ROLE letter_reader LOGIN")
    if right == "a policy":
        letters.connection.execute(
            "GRANT SELECT ON letter TO letter_reader; ALTER TABLE letter ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY all_of_them ON letter USING (true)"
        )
    try:
        letters.file.write_text(FILE, "utf-8")
        url = letters.url.replace("postgres@", "letter_reader@")
        given = ["backlog", "--pipeline", str(letters.file)]
        result = CliRunner(env={READ_URL: url}).invoke(main, given)
        assert (result.exit_code, len(result.output.splitlines())) == (1, 1), result.output
        assert ("ask the owner for SELECT" if right == "SELECT" else "BYPASSRLS") in result.output
    finally:
        letters.connection.execute("DROP OWNED BY letter_reader; DROP ROLE letter_reader")


@pytest.mark.proof
def test_an_empty_queue_and_one_in_which_all_is_done_are_no_fault(
    letters: Letters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for done in (0, 1):
        if done:
            letters.add("bills", "ok", made="2026-01-01", begun="infinity", done="2026-01-02")
        for command in ("backlog", "eta", "durations", "retry", "retry --apply --max-rows 0"):
            code, lines = letters.run(*command.split())
            assert code == 0, (command, lines)
        assert len(letters.queue().backtest()) == 0
        code, lines = letters.run("report", "throughput_eta")
        assert (code, lines[-2]) == (0, "No letter waits."), lines
    assert letters.run("report", "explore")[0] == 0


def test_a_start_that_is_no_time_has_no_duration(letters: Letters) -> None:
    now = datetime.now(UTC)
    for begun in ("infinity", "-infinity", "0044-01-01 BC", now + MINUTE, now - 3 * MINUTE):
        letters.add("bills", "ok", made="2026-01-01", begun=begun, done=now)
    (row,) = letters.queue().durations().to_dict("records")
    assert (row["completions"], row["run_p99_seconds"]) == (5, 180.0)


def test_more_of_a_state_of_which_a_kind_has_none_is_none(letters: Letters) -> None:
    letters.add("bills", "ok", made="2026-01-01", done=datetime.now(UTC))
    letters.add("cards", "dead")
    (row,) = letters.queue().eta("bills", extra={"bills": "exhausted"}).to_dict("records")
    assert (row["waiting"], row["if_waiting"]) == (0, 0)


def test_a_kind_that_is_gone_afterwards_is_compared_all_the_same(letters: Letters) -> None:
    letters.add("bills", "dead")
    letters.add("cards", "new")
    before = letters.queue().backlog()
    letters.connection.execute("DELETE FROM letter WHERE sort = 'bills'")
    both = before_and_after(before, letters.queue().backlog(), ["total", "exhausted"])
    assert both.drop(columns="stage").to_numpy().tolist() == [
        ["bills", 1, 0, 1, 0],
        ["cards", 1, 1, 0, 0],
    ]


def test_history_is_wherever_its_file_says_if_it_is_there(letters: Letters) -> None:
    letters.connection.execute(
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
