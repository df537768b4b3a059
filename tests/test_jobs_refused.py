"""What a pipeline file of jobs may not do, and what such a queue is not asked: each in one line."""

import re

import pytest

from letters import FILE, Letters, letters

__all__ = ["letters"]  # a fixture


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: sort", "kind: sort +", "jobs.kind: syntax error"),
        ("kind: sort", "kind: kin", 'jobs.kind: column "kin" does not exist'),
        ("due_at: due", "due_at: sort", "jobs.due_at: is text, expected a time"),
        (
            "attempts: tries",
            "attempts: tries, max_tries",
            "jobs.attempts: expected one expression",
        ),
        ("kind: sort", "kind: sort, state", "jobs.kind: expected one expression"),
        ("status: state", "status: tries", "jobs.status: invalid input syntax for type integer"),
        ("id: id", 'id: "id) FROM letter; DROP TABLE letter; SELECT (1"', "jobs.id: "),
        ("id: id", 'id: "1); COMMIT; DROP TABLE letter; BEGIN; SELECT (1"', "jobs.id: "),
        ("from: letter", "from: lettre", 'jobs.from: relation "lettre" does not exist'),
        ("from: letter", "from: secret.letter", "jobs.from: "),
        ("from: letter", "from: []", "jobs.from: "),
        ("from: letter", "from: letter WHERE true", "jobs.from: syntax error"),
        ("kind: sort", "kind: (SELECT x FROM lettre)", 'jobs.kind: relation "lettre"'),
        ("running: [busy]", "running: [bussy]", "states.running: the status cannot be 'bussy'"),
        ("running: [busy]", "runing: [busy]", "states"),
        ("running: [busy]", "running: [busy, new]", "states: found 'new' twice"),
        ("  id: id\n", "", "jobs.id: Field required"),
        ("kind: sort", "kinds: sort", "jobs.kinds: unknown key"),
    ],
)
def test_a_broken_file_is_one_line_that_names_the_role(
    letters: Letters, old: str, new: str, said: str
) -> None:
    letters.add("bills", "new")
    before = letters.rows()
    assert old in FILE
    code, lines = letters.run("backlog", text=FILE.replace(old, new))
    assert code == 2, lines
    assert said in "\n".join(lines)
    assert len(lines) == (2 if "kinds: " in new else 1), lines  # the role is missing, too
    assert letters.rows() == before


def test_a_role_cannot_write(letters: Letters) -> None:
    letters.add("bills", "new")
    letters.connection.execute(
        "CREATE FUNCTION grab() RETURNS text AS 'DELETE FROM letter RETURNING sort' LANGUAGE sql"
    )
    code, lines = letters.run("backlog", text=FILE.replace("kind: sort", "kind: grab()"))
    assert (code, len(lines)) == (1, 1), lines
    assert "read-only" in lines[0]
    assert len(letters.rows()) == 1


REFUSED = {
    **dict.fromkeys(("audit", "missing", "orphans"), "a job is its own row"),
    **{"backfill": "a job is its own row", "prune": "a job is its own row"},
    **{"requeue": "a completed job is over", "reset": "for its own queue to say"},
    **{"trigger sql": "nothing is installed", "trigger install": "nothing is installed"},
    **{"trigger verify": "nothing is installed", "trigger uninstall": "nothing is installed"},
    **{f"views {what}": "nothing is installed" for what in ("sql", "install", "verify")},
    **{"grants reader someone": "grant SELECT", "eta --end-to-end": "do not lead"},
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_does_not_fit_jobs_is_refused_with_its_reason(letters: Letters, command: str) -> None:
    code, lines = letters.run(*command.split())
    assert (code, len(lines)) == (2, 1), lines
    assert REFUSED[command] in lines[0]
    assert "'letters'" in lines[0]


@pytest.mark.parametrize(
    ("left_out", "command", "why"),
    [
        ("error", "failures", "keeps no error text"),
        ("started_at", "durations", "when a job was started"),
        ("finished_at", "throughput", "when a job was done"),
        ("finished_at", "flow", "when a job was done"),
        ("finished_at", "eta", "when a job was done"),
        ("actions", "retry", "no way to retry"),
    ],
)
def test_what_a_queue_does_not_keep_is_said_instead_of_guessed(
    letters: Letters, left_out: str, command: str, why: str
) -> None:
    text = FILE if left_out == "actions" else re.sub(rf"  {left_out}: .*\n", "", FILE)
    code, lines = letters.run(command, text=text)
    assert (code, len(lines)) == (2, 1), lines
    assert why in lines[0]
    code, lines = letters.run("doctor", text=text)
    assert any(why in line for line in lines), lines
