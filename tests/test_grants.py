"""The least grants: with them a reader and an operator can do all that they should, and no more."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import psycopg
import pytest
from click.testing import Result
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from conftest import Bench, Fresh
from operating import WORK, command, edited, everything, objects, operable, rows, work
from queue_insights.cli import main
from queue_insights.ddl import grants, trigger, views
from queue_insights.errors import DatabaseError, InputError

NAME = 'Rôle of "{}", o\'clock %s; --'
# Every command, and with what it is called here.
READS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("backlog", "audit", "missing", "upcoming", "tasks", "orphans"), ()),
    **dict.fromkeys(("failures", "throughput", "durations", "flow", "eta", "doctor", "runs"), ()),
    **dict.fromkeys(("trigger sql", "trigger verify", "views sql", "views verify"), ()),
    **{"grants": ("reader", "somebody"), "track": ("nobody",)},
}
VARIATIONS: dict[str, tuple[str, ...]] = {
    **{"audit": ("--sources",), "eta": ("--end-to-end",)},
    **dict.fromkeys(WORK, ("--limit", "1")),  # a dry run
}
DDL = ("trigger install", "trigger uninstall", "views install", "views uninstall")
WRITES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(WORK, ("--apply", "--max-rows", "100")),
    **{"resume": ("{retry}",), "stop": ("{reset}",), "undo": ("{backfill}",)},
    **dict.fromkeys(DDL, ()),
}
ELSEWHERE = {"report", "demo", "lab"}  # a test of its own; the embedded database; JupyterLab
TABLES = ("tracks", "audio_tasks")
LEDGER = tuple(f"queue_insights.{table}" for table in ("runs", "targets", "batches"))


def leaves(group: click.Group = main, path: str = "") -> Iterator[str]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from leaves(each, f"{path}{name} ")
        else:
            yield path + name


def test_no_command_is_forgotten_here() -> None:
    assert sorted(leaves()) == sorted([*READS, *WRITES, *ELSEWHERE])


def prepare(bench: Bench) -> Bench:
    """Work for each action, and nothing for PUBLIC."""
    name = bench.connection.info.dbname
    bench.sql(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC")
    work(bench, 2)
    return bench


@pytest.fixture
def bench(bench: Bench) -> Bench:
    return prepare(bench)


@pytest.fixture
def plain(fresh: Fresh) -> Bench:
    """What does not depend on the variant."""
    return prepare(fresh("a"))


class Role:
    """A role that can log in and may do nothing else, until it is granted something."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.name = NAME.format(bench.connection.info.dbname[:17])
        self._execute("CREATE ROLE {} LOGIN")
        self.url = bench.url.replace("postgres@", f"{quote(self.name)}@", 1)

    def _execute(self, statement: str) -> None:
        self.bench.connection.execute(sql.SQL(statement).format(sql.Identifier(self.name)))

    def drop(self) -> None:
        self._execute("DROP OWNED BY {}")
        self._execute("DROP ROLE {}")

    def become(self, kind: grants.Kind, file: str | Path = "karaoke") -> str:
        """Run what `grants` prints, as the tables' owner; returns it."""
        printed = command(self.bench.url, "grants", kind, self.name, "--pipeline", str(file))
        assert (printed.exit_code, printed.stderr) == (0, "")
        self.bench.connection.execute(printed.stdout.encode())
        return printed.stdout

    def run(self, *arguments: str) -> Result:
        return command(self.url, *(word for argument in arguments for word in argument.split()))

    def may_not(self, *statements: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                with pytest.raises(InsufficientPrivilege):
                    connection.execute(statement)


Make = Callable[[Bench], Role]


@pytest.fixture
def role() -> Iterator[Make]:
    made: list[Role] = []

    def make(bench: Bench) -> Role:
        made.append(Role(bench))
        return made[-1]

    yield make
    for each in made:
        each.drop()


def install(bench: Bench) -> None:
    """Trigger, views and ledger: a finished backfill, a stopped retry, a reset that runs."""
    queue = operable(bench.url)
    trigger.install(queue)
    views.install(queue)
    queue.plan_backfill(limit=1).apply(max_rows=1)
    for action, state in (("retry", "stopped"), ("reset", "running")):
        getattr(queue, f"plan_{action}")(limit=1).apply(max_rows=1)
        bench.sql("UPDATE queue_insights.runs SET state = %s WHERE action = %s", state, action)


def empty_ledger(bench: Bench) -> None:
    operable(bench.url).plan_backfill(tasks="clip").apply(max_rows=0)
    bench.sql("DELETE FROM queue_insights.runs")


def database(bench: Bench) -> tuple[Any, ...]:
    return *everything(bench.connection), objects(bench)


# What is refused to whom; with {}, of any table of the application's or of ours.
REFUSED = {
    "both": (
        *("TRUNCATE {} CASCADE", "DROP TABLE {} CASCADE", "ALTER TABLE {} ADD COLUMN x int"),
        *("CREATE INDEX ON {} ((1))", "ALTER TABLE {} DISABLE TRIGGER ALL", "CREATE SCHEMA x"),
        *("CREATE TABLE public.x ()", "CREATE TABLE queue_insights.x ()", "DELETE FROM tracks"),
        "INSERT INTO tracks DEFAULT VALUES",
    ),
    "reader": (
        *("INSERT INTO {} DEFAULT VALUES", "DELETE FROM {}", "SELECT FROM {} FOR KEY SHARE"),
        *("UPDATE tracks SET updated_at = now()", "UPDATE audio_tasks SET status = 'pending'"),
        *("UPDATE queue_insights.runs SET state = 'x'", "SELECT nextval('audio_tasks_id_seq')"),
        "CREATE TEMPORARY TABLE x ()",
    ),
    "operator": (),
}


@pytest.mark.parametrize("kind", ["reader", "operator"])
def test_each_may_do_what_is_its_own_only(bench: Bench, role: Make, kind: grants.Kind) -> None:
    one, reads = role(bench), kind == "reader"
    install(bench)
    with pytest.raises(DatabaseError, match="denied"):
        operable(one.url).backlog()
    one.become(kind)
    every = (*READS.items(), *VARIATIONS.items())
    for name, arguments in every if reads and bench.variant == "a" else ():
        result = one.run(name, *arguments)
        assert (result.exit_code, result.stderr) == (0, ""), f"{name}: {result.output}"
    assert len(operable(one.url).run(1).dropped()) == 0

    runs = dict(bench.sql("SELECT action, run FROM queue_insights.runs"))
    before = database(bench)
    writes = (*WRITES.items(), ("runs", ("--prune", "1s"))) if reads else [(c, ()) for c in DDL]
    for name, arguments in writes:
        result = one.run(name, *(word.format(**runs) for word in arguments))
        assert result.exit_code in (1, 2), f"{name}: {result.output}"
        assert re.fullmatch(r"queue-insights: .*\n", result.stderr), f"{name}: {result.stderr}"
        assert re.search("denied|lacks|must be owner", result.stderr)
        assert reads or "nothing was changed" in result.stderr
        assert database(bench) == before
    if reads:
        probe = one.run("trigger verify --probe")
        assert (probe.exit_code, probe.stderr) == (3, "")
        assert "permission denied for table tracks" in probe.stdout
    for table in (*TABLES, *LEDGER):
        one.may_not(*(each.format(table) for each in (*REFUSED["both"], *REFUSED[kind])))
    columns = bench.sql(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND table_name = 'tracks' AND column_name <> 'updated_at'"
    )
    assert len(columns) > 10
    one.may_not(*(f"UPDATE tracks SET {column} = NULL" for (column,) in columns))
    assert database(bench) == before


def test_before_there_are_views_and_ledger(plain: Bench, role: Make) -> None:
    one = role(plain)
    printed = one.become("reader")
    assert "GRANT USAGE ON SCHEMA queue_insights" not in printed
    assert "print this\n-- again after the first action, and after `views install`" in printed
    for name in ("backlog", "runs", "doctor", "backfill", "trigger verify", "views verify"):
        result = one.run(name)
        assert (result.exit_code, result.stderr) == (3 * ("verify" in name), ""), result.output
    one.become("operator")
    plain.sql("DROP SCHEMA queue_insights CASCADE")  # which the grants have made
    before = database(plain)
    refused = one.run("backfill", *WRITES["backfill"])
    assert refused.exit_code == 1
    assert re.search("no ledger yet.*runs --ddl", refused.stderr)
    assert database(plain) == before


@pytest.mark.proof
@pytest.mark.parametrize("ledger", ["a ledger", "no ledger"])
def test_an_operator_can_do_and_undo_every_action(bench: Bench, role: Make, ledger: str) -> None:
    if ledger == "a ledger":
        empty_ledger(bench)
    operator = role(bench)
    operator.become("operator")
    assert "has the privileges that actions need" in operator.run("doctor").stdout
    before = rows(bench.connection)
    for run, action in enumerate(WORK, start=2 if ledger == "a ledger" else 1):
        done = operator.run(action, *WRITES[action])
        assert done.exit_code == 0, done.output
        count = "SELECT rows_done FROM queue_insights.runs WHERE action = %s"
        assert bench.sql(count, action) == [(2,)]
        assert rows(bench.connection) != before
        undone = operator.run("undo", str(run))
        assert undone.exit_code == 0, undone.output
        assert rows(bench.connection) == before
    bench.sql("UPDATE queue_insights.runs SET state = 'running' WHERE run = %s", run)
    assert operator.run("stop", str(run)).exit_code == 0
    assert operator.run("resume", str(run)).exit_code == 0
    assert bench.sql("SELECT DISTINCT state FROM queue_insights.runs") == [("undone",)]
    assert operator.run("runs", "--prune", "0.000001s").stdout.startswith("5 runs dropped")


def granted(printed: str) -> list[tuple[str, str]]:
    """Each privilege, and what it is on."""
    found = re.findall(r"^GRANT (.*) ON (SCHEMA |DATABASE |SEQUENCE |)(\S.*) TO ", printed, re.M)
    assert len(found) == len(re.findall("^ *GRANT ", printed, re.M))
    return [
        (privilege, kind + name)
        for privileges, kind, names in found
        for privilege in privileges.split(", ")
        for name in names.split(", ")
    ]


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["reader", "operator"])
def test_every_grant_is_needed(plain: Bench, role: Make, kind: grants.Kind) -> None:
    one = role(plain)
    (install if kind == "reader" else empty_ledger)(plain)
    every = granted(one.become("reader"))
    commands = ["backlog", "audit --sources", "views verify", "runs"]
    if kind == "operator":
        every = [grant for grant in granted(one.become(kind)) if grant not in every]
        commands = ["backfill --apply --max-rows 100"]
    assert len(every) > 10
    name = sql.Identifier(one.name).as_string(plain.connection)
    for privilege, on in every:
        plain.sql(f"REVOKE {privilege} ON {on} FROM {name}")
        said = "".join(done.output for each in commands if (done := one.run(each)).exit_code)
        if on == "queue_insights.batches" and kind == "reader":  # no command shows what was dropped
            with pytest.raises(DatabaseError, match="denied"):
                operable(one.url).run(1).dropped()
        else:
            assert said, f"{privilege} ON {on} is not needed"
        assert kind == "reader" or f"lacks {privilege.split()[0]} on" in said
        plain.sql(f"GRANT {privilege} ON {on} TO {name}")
    assert [one.run(each).exit_code for each in commands] == [0] * len(commands)


def test_grants_name_the_tables_of_the_file(plain: Bench, role: Make, tmp_path: Path) -> None:
    tracks = '"App %s, o\'clock"."Träcks ""old""!"'
    home, _, name = tracks.partition(".")
    plain.connection.execute(
        f"CREATE SCHEMA {home}; ALTER TABLE tracks RENAME TO {name}; "
        f"ALTER TABLE {name} SET SCHEMA {home}; "
        f'ALTER TABLE {tracks} RENAME updated_at TO "At; --"'.encode()
    )
    file = edited(tmp_path, "table: tracks  ", f"table: {json.dumps(tracks)}  ")
    file.write_text(file.read_text().replace("updated_at: updated_at", "updated_at: 'At; --'", 1))
    operator = role(plain)
    operator.become("operator", file)
    result = operator.run("backfill --apply --max-rows 2 --pipeline", str(file))
    assert result.exit_code == 0, result.output
    assert plain.sql("SELECT rows_done FROM queue_insights.runs") == [(2,)]


@pytest.mark.parametrize("name", ["", "public", "none", "x" * 64, "ü" * 32, "a\0b", "\udcff"])
def test_a_name_that_no_role_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^grants: ROLE: found .*, expected the name of one role"):
        grants.generate(operable("postgresql://nobody@localhost:1/none"), "reader", name)
