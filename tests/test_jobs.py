"""Queues of jobs, by a pipeline file: one of nobody's that is described in 15 lines."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Url, database
from queue_insights import pipeline
from queue_insights.cli import main
from queue_insights.database import READ_URL, Database
from queue_insights.errors import InputError, PlanError
from queue_insights.queue import Queue
from queue_insights.reads import STATES

FILE = """name: letters
jobs:
  from: letter
  id: id
  kind: sort
  status: state
  attempts: tries
  max_attempts: max_tries
  due_at: due
  created_at: made
  started_at: begun
  finished_at: done
  error: problem
states: {pending: [new], retryable: [again], running: [busy],
  completed: [ok], exhausted: [dead], skipped: [void]}
"""
RETRY = """items: letters
actions:
  retry: >-
    UPDATE letter SET state = 'new', tries = 0
    WHERE id = ANY (:ids) AND state = 'dead' RETURNING id
"""
TABLE = """
    CREATE TYPE letter_state AS ENUM ('new', 'again', 'busy', 'ok', 'dead', 'void', 'odd');
    CREATE TABLE letter (id bigserial PRIMARY KEY, sort text NOT NULL, state letter_state NOT NULL,
        tries int NOT NULL DEFAULT 0, max_tries int DEFAULT 3, due timestamptz, made timestamp,
        begun timestamptz, done timestamptz, problem text)
"""
MINUTE = timedelta(minutes=1)


@dataclass
class Letters:
    """A database of letters, an autocommit connection to it, and where its pipeline file is."""

    url: str
    connection: psycopg.Connection[Any]
    file: Path

    def queue(self, text: str = FILE + RETRY) -> Queue:
        self.file.write_text(text, "utf-8")
        return Queue(Database(self.url), pipeline.load(self.file))

    def add(self, sort: str, state: str, **columns: Any) -> int:
        names = ["sort", "state", *columns]
        statement = (
            f"INSERT INTO letter ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) "
            "RETURNING id"
        )
        row = self.connection.execute(statement, [sort, state, *columns.values()]).fetchone()
        assert row
        return int(row[0])

    def run(self, *arguments: str, text: str = FILE + RETRY) -> tuple[int, list[str]]:
        """The exit code of a command on that pipeline file, and the lines that it printed."""
        self.file.write_text(text, "utf-8")
        given = [*arguments, "--pipeline", str(self.file)]
        result = CliRunner(env={READ_URL: self.url}).invoke(main, given)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.exit_code, result.output.splitlines()

    def rows(self) -> list[Any]:
        return self.connection.execute("SELECT letter::text FROM letter ORDER BY id").fetchall()


@pytest.fixture
def letters(server: Url, tmp_path: Path) -> Iterator[Letters]:
    with database(server) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute(TABLE)
        yield Letters(url, connection, tmp_path / "letters.yaml")


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
    return {"dead": "exhausted", "void": "skipped", "odd": "other"}[row["state"]]


TIMES = st.sampled_from([None, -90 * MINUTE, -5 * MINUTE, 5 * MINUTE, timedelta(days=40)])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "sort": st.sampled_from(["bills", 'ca"rds', "it's"]),
            "state": st.sampled_from(["new", "again", "busy", "ok", "dead", "void", "odd"]),
            **{"tries": st.integers(0, 3), "max_tries": st.sampled_from([None, 1, 3])},
            **{"due": TIMES, "begun": TIMES},
        }
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(rows=ROWS)
def test_jobs_are_in_the_states_of_their_definition(letters: Letters, rows: list[Any]) -> None:
    letters.connection.execute("TRUNCATE letter")
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


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("text", "problem"),
        ("jsonb", "problem -> -1 ->> 'message'"),
        ("jsonb[]", "problem[cardinality(problem)] ->> 'message'"),
    ],
)
def test_failures_of_jobs_are_grouped_by_kind_whatever_column_holds_the_message(
    letters: Letters, kind: str, shown: str
) -> None:
    letters.connection.execute("ALTER TABLE letter DROP COLUMN problem")
    letters.connection.execute(f"ALTER TABLE letter ADD COLUMN problem {kind}")
    wrapped = {
        "text": "{}",
        "jsonb": '[{{"message": "an earlier one"}}, {{"message": "{}"}}]',
        "jsonb[]": '{{"{{\\"message\\": \\"an earlier one\\"}}","{{\\"message\\": \\"{}\\"}}"}}',
    }[kind]
    for n in range(7):
        state = "dead" if n < 4 else "again"
        letters.add("bills", state, tries=1, problem=wrapped.format(f"no answer in {n} s"))
    letters.add("cards", "dead", problem=wrapped.format("printer is out of ink"))
    letters.add("cards", "dead")
    letters.add("cards", "ok", problem=wrapped.format("of one that was done in the end"))
    queue = letters.queue(FILE.replace("error: problem", f"error: {shown}"))
    found = queue.failures().to_dict("records")
    rows = {(r["task_type"], r["error"]): (r["rows"], r["exhausted"]) for r in found}
    assert rows == {
        ("bills", "no answer in * s"): (7, 4),
        ("cards", "printer is out of ink"): (1, 1),
        ("cards", "(no message)"): (1, 1),
    }
    (bills,) = (record["failure"] for record in found if record["task_type"] == "bills")
    assert len(queue.tasks(failure=bills)) == 7


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
        ("running: [busy]", "running: [bussy]", "states.running: the status cannot be 'bussy'"),
        ("running: [busy]", "runing: [busy]", "states"),
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


def test_retry_takes_the_very_jobs_of_its_plan(letters: Letters) -> None:
    dead = [str(letters.add("bills", "dead", tries=3)) for _ in range(3)]
    letters.add("bills", "again", tries=1)
    queue = letters.queue()
    plan = queue.plan_retry()
    assert plan.rows == 3
    letters.add("cards", "dead", tries=3)
    with pytest.raises(PlanError, match="not what was planned"):
        plan.apply(confirm=plan.token)
    chosen = queue.plan_retry(ids=[*dead[:2], "no id", "4"])
    assert chosen.left_out()["reason"].tolist() == [
        "there is no such job, or it is completed",
        "bills is retryable",
    ]
    run = chosen.apply(confirm=chosen.token)
    assert (run.row["rows_done"], run.row["rows_dropped"], run.state) == (2, 0, "finished")
    states = dict(letters.connection.execute("SELECT id::text, state::text FROM letter").fetchall())
    assert states == {dead[0]: "new", dead[1]: "new", dead[2]: "dead", "4": "again", "5": "dead"}
    with pytest.raises(InputError, match="no way back"):
        run.undo()
    assert queue.plan_retry(ids=[]).rows == 0


def test_a_retry_that_another_made_meanwhile_is_not_made_again(letters: Letters) -> None:
    """Between the list of the jobs and their batch, the queue's own worker may take one."""
    first, second = (letters.add("bills", "dead", tries=3) for _ in range(2))
    taken = RETRY.replace("state = 'dead'", f"state = 'dead' AND id <> {first}")
    plan = letters.queue(FILE + taken).plan_retry()
    run = plan.apply(confirm=plan.token)
    assert (run.row["rows_done"], run.row["rows_dropped"]) == (1, 1)
    assert run.dropped()[["id", "reason"]].to_numpy().tolist() == [
        [str(first), "it is exhausted no more"]
    ]
    assert second


def test_a_role_without_a_ledger_is_refused_before_anything_is_retried(letters: Letters) -> None:
    letters.add("bills", "dead", tries=3)
    letters.connection.execute("DROP ROLE IF EXISTS letter_writer")
    letters.connection.execute(
        "CREATE ROLE letter_writer LOGIN; GRANT SELECT, UPDATE ON letter TO letter_writer"
    )
    try:
        url = letters.url.replace("postgres@", "letter_writer@")
        assert url != letters.url
        letters.file.write_text(FILE + RETRY, "utf-8")
        plan = Queue(Database(url), pipeline.load(letters.file)).plan_retry()
        before = letters.rows()
        with pytest.raises(Exception, match="no ledger yet"):
            plan.apply(confirm=plan.token)
        assert letters.rows() == before
    finally:
        letters.connection.execute("DROP OWNED BY letter_writer; DROP ROLE letter_writer")


def test_doctor_says_which_known_queues_a_database_holds(letters: Letters) -> None:
    letters.connection.execute(
        "CREATE TABLE que_jobs (); CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.oban_jobs ()"
    )
    code, lines = letters.run("doctor")
    said = "\n".join(lines)
    assert "public.que_jobs: queue-insights backlog --pipeline que" in said
    assert "PGOPTIONS='-c search_path=elsewhere' queue-insights backlog --pipeline oban" in said
    assert "river" not in said
    assert code == 0


def test_every_shipped_file_of_another_queue_is_short_and_loads() -> None:
    names = {*pipeline.shipped_pipelines()} - {"karaoke"}
    assert names == {
        *("procrastinate", "pgqueuer", "oban", "river", "pgboss", "graphile_worker"),
        *("good_job", "solid_queue", "que", "chancy", "django_tasks"),
    }
    for name in names:
        assert pipeline.load(name).name == name
        text = (pipeline.shipped("params") / "pipelines" / f"{name}.yaml").read_text("utf-8")
        assert len(text.splitlines()) <= 30
        assert text.startswith("#")


def test_a_description_of_a_queue_takes_15_lines() -> None:
    assert len(FILE.splitlines()) <= 15


def test_the_worked_example_of_the_docs_works(letters: Letters) -> None:
    page = (pipeline.shipped("params").parent / "docs" / "queues.md").read_text("utf-8")
    (table,) = re.findall(r"(?ms)^```sql\n(.*?)^```", page)
    (file,) = re.findall(r"(?ms)^```yaml\n(.*?)^```", page)
    letters.connection.execute(f"DROP TABLE letter; {table}")
    letters.connection.execute(
        "INSERT INTO printer VALUES ('laser', now() - interval '1 minute');"
        "INSERT INTO letter (sort, state, printer, begun) VALUES"
        " ('bills', 'printing', 'laser', now() - interval '1 hour'),"
        " ('bills', 'printing', NULL, NULL), ('cards', 'spoilt', NULL, NULL)"
    )
    code, lines = letters.run("doctor", text=file)
    assert code == 0, lines
    backlog = letters.queue(file).backlog().set_index("task_type")
    assert backlog[["running", "stuck", "exhausted"]].to_numpy().tolist() == [[1, 1, 0], [0, 0, 1]]
    code, lines = letters.run("retry", "--apply", "--max-rows", "1", text=file)
    assert (code, letters.queue(file).backlog()["pending"].sum()) == (0, 1), lines
    code, lines = letters.run("eta", text=file)
    assert code == 0, lines


def test_what_is_printed_as_sql_gives_the_same_in_psql(letters: Letters) -> None:
    letters.add("bills", "new", made=datetime(2026, 1, 1))
    letters.add("cards", "again", tries=1)
    text = letters.queue().sql("backlog")
    assert "letter" in text
    settings_, _, query = text.partition("\n\n")
    assert "READ ONLY" in settings_
    with psycopg.connect(letters.url, autocommit=True) as connection:
        connection.execute(settings_)
        found = connection.execute(query.removesuffix("\n\nCOMMIT;")).fetchall()
    assert [row[1] for row in found] == ["bills", "cards"]
