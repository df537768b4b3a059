"""What a pipeline file of jobs may not do, and what such a queue is not asked: each in one line."""

import re
from collections.abc import Iterator

import pytest

from conftest import Url
from letters import FILE, RETRY, Letters, office


@pytest.fixture(scope="module")
def letters(server: Url, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Letters]:
    """One database for all: nothing may be done to it."""
    with office(server, tmp_path_factory.mktemp("letters")) as made:
        made.add("bills", "new")
        made.add("bills", "dead", tries=3)
        before = made.rows()
        yield made
        assert made.rows() == before
        assert len(made.queue().runs()) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: sort", "kind: sort +", "jobs.kind: syntax error"),
        ("kind: sort", "kind: kin", 'jobs.kind: column "kin" does not exist'),
        ("due_at: due", "due_at: sort", "jobs.due_at: is text, expected a time"),
        ("kind: sort", "kind: sort, state", "jobs.kind: expected one expression"),
        ("status: state", "status: tries", "jobs.status: invalid input syntax for type integer"),
        ("id: id", 'id: "1); COMMIT; DROP TABLE letter; BEGIN; SELECT (1"', "jobs.id: "),
        ("from: letter", "from: lettre", 'jobs.from: relation "lettre" does not exist'),
        ("from: letter", "from: secret.letter", "jobs.from: "),
        ("running: [busy]", "running: [bussy]", "states.running: the status cannot be 'bussy'"),
        ("running: [busy]", "running: [busy, new]", "states: found 'new' twice"),
        ("  id: id\n", "  id: id\n  idd: id\n", "jobs.idd: unknown key"),
        ("'new'", "'nwe'", "nwe"),
        (" RETURNING id", "", "RETURNING"),
        ("RETURNING id", "RETURNING id; DROP TABLE letter", ";"),
    ],
)
def test_a_broken_file_is_one_line_that_names_the_role_before_anything_is_done(
    letters: Letters, old: str, new: str, said: str
) -> None:
    text = (FILE + RETRY).replace(old, new, 1)
    assert text != FILE + RETRY
    command = "retry --apply --max-rows 9" if old in RETRY else "backlog"
    line = letters.refused(command, text)
    assert said in line
    assert ("actions.retry" in line) == (old in RETRY)


@pytest.mark.parametrize("id", ["no id", "", "9" * 30])
def test_an_id_that_its_type_cannot_be_is_bad_input(letters: Letters, id: str) -> None:
    assert repr(id) in letters.refused(f"track '{id}'")


def test_a_role_cannot_write(letters: Letters) -> None:
    letters.sql(
        "CREATE FUNCTION grab() RETURNS text AS 'DELETE FROM letter RETURNING sort' LANGUAGE sql"
    )
    text = FILE.replace("kind: sort", "kind: grab()")
    assert "read-only" in letters.refused("backlog", text, code=1)


REFUSED = {
    **dict.fromkeys(("audit", "missing", "orphans"), "a job is its own row"),
    **{"backfill": "a job is its own row", "prune": "a job is its own row"},
    **{"requeue": "a completed job is over", "reset": "for its own queue to say"},
    **{f"trigger {what}": "nothing is installed" for what in ("sql", "install", "verify")},
    **{f"views {what}": "nothing is installed" for what in ("sql", "install", "verify")},
    **{"trigger uninstall": "nothing is installed"},
    **{"grants reader someone": "grant SELECT", "eta --end-to-end": "do not lead"},
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_does_not_fit_jobs_is_refused_with_its_reason(letters: Letters, command: str) -> None:
    line = letters.refused(command)
    assert REFUSED[command] in line
    assert "'letters'" in line


@pytest.mark.parametrize(
    ("left_out", "commands", "why"),
    [
        ("error", ["failures"], "keeps no error text"),
        ("started_at", ["durations"], "when a job was started"),
        ("finished_at", ["throughput", "flow", "eta"], "when a job was done"),
        ("actions", ["retry"], "no way to retry"),
    ],
)
def test_what_a_queue_does_not_keep_is_said_instead_of_guessed(
    letters: Letters, left_out: str, commands: list[str], why: str
) -> None:
    text = FILE if left_out == "actions" else re.sub(rf"  {left_out}: .*\n", "", FILE)
    for command in commands:
        assert why in letters.refused(command, text)
    assert any(why in line for line in letters.said("doctor", text))
