"""Connections: what goes wrong is one line that says what to do, and never a credential."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import Result
from psycopg.conninfo import conninfo_to_dict

from conftest import Bench, Fresh, Url, tracks_as_view
from operating import command
from queue_insights import demo, pipeline
from queue_insights.database import READ_URL, TIMEOUT, WRITE_URL, Database, check_url
from queue_insights.errors import DatabaseError, InputError
from queue_insights.queue import Queue
from servers import folder

# No two of its words are apart from a character that means something in a URL.
WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf")
PASSWORD = "alpha@bravo:charlie/delta?echo#foxtrot%golf"


@pytest.fixture
def bench(fresh: Fresh) -> Bench:
    return fresh("b")  # connections do not depend on the variant


def run(*arguments: str, **variables: str) -> Result:
    """Run a command on the database that the variables name; none of WORDS may ever be printed."""
    result = command(None, *arguments, **variables)
    assert not words(result.output), result.output
    return result


def words(text: str) -> list[str]:
    return [word for word in WORDS if word in text]


def one_line(result: Result, code: int = 1) -> str:
    assert result.exit_code == code
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("queue-insights: ")
    return line


@pytest.fixture(scope="module")
def locked() -> Iterator[Url]:
    """A server that asks the role `locked` for PASSWORD: from a password to a URL."""
    with folder() as home, demo.EmbeddedServer(home / "demo") as server:
        url = server.url("postgres")
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("CREATE ROLE locked LOGIN SUPERUSER PASSWORD '" + PASSWORD + "'")
            admin.execute("CREATE ROLE bare LOGIN")
            demo.create_schema(admin, "a")
        (server.data / "pg_hba.conf").write_text(
            "local all locked scram-sha-256\nlocal all bare reject\nlocal all all trust\n"
        )
        server.stop()
        server.start()
        yield lambda text: url.replace("postgres@", f"locked:{quote(text, safe='')}@", 1)


def test_any_password_works_percent_encoded_in_the_query_or_in_the_environment(locked: Url) -> None:
    bare, encoded = locked("").replace("locked:@", "locked@"), quote(PASSWORD, safe="")
    for variables in (
        {READ_URL: locked(PASSWORD)},
        {READ_URL: f"{bare}&password={encoded}&application_name=x"},
        {READ_URL: bare, "PGPASSWORD": PASSWORD},
    ):
        result = run("backlog", **variables)
        assert result.exit_code == 0, result.stderr
        assert "audio_ready" in result.stdout


def test_who_is_not_let_in_is_told_what_to_check(locked: Url) -> None:
    mend = "check the user and password in the URL, PGPASSWORD or ~/.pgpass"
    for password, old, new, says in (
        *((wrong, "", "", f"password.*{mend}") for wrong in (PASSWORD[:-1], "alphagolf", "")),
        (PASSWORD, "//locked:", "//bare:", "the server's pg_hba.conf decides who may connect"),
        (PASSWORD, "//locked:", "//nobody:", 'role "nobody" does not exist; check the user and pa'),
        (PASSWORD, "/postgres?", "/nowhere?", '"nowhere" does not exist; check the database name'),
    ):
        line = one_line(run("backlog", **{READ_URL: locked(password).replace(old, new)}))
        assert re.search(says, line)


UNREACHABLE = {
    "a closed port": "postgresql://u:{}@127.0.0.1:1/db",
    "no such host": "postgresql://u:{}@nohost.invalid/db",
    "a password in the query": "postgresql://127.0.0.1:1/db?user=u&password={}",
    "through sqlalchemy": "postgresql+psycopg://u:{}@127.0.0.1:1/db",
}


@pytest.mark.parametrize("kind", [*UNREACHABLE, "one that never answers"])
def test_an_unreachable_server(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        here = f"127.0.0.1:{silent.getsockname()[1]}"
        url = UNREACHABLE.get(kind, f"postgresql://u:{{}}@{here}/db?connect_timeout=2")
        line = one_line(run("backlog", **{READ_URL: url.format(quote(PASSWORD, safe=""))}))
    assert line.startswith("queue-insights: db on ")
    assert "check that the server runs and that QUEUE_INSIGHTS_URL" in line


MALFORMED: dict[str, str] = {
    f"postgresql://u:{PASSWORD}@127.0.0.1:1/db": "percent-encoded",
    **{f"postgresql://u:alpha{c}bravo@127.0.0.1:1/db": "percent-encoded" for c in "@/?#% "},
    "postgresql://alpha:bravo": "percent-encoded",  # a user and a password, and no host
    "mysql://u:alpha@127.0.0.1/db": "it begins with mysql://, expected postgresql://",
    "postgresql+psycopg2://u:alpha@h/d": "begins with postgresql+psycopg2://, expected postgresql:",
    **dict.fromkeys(("host=h password=alpha", "u:alpha@h/db", "alpha"), "expected postgresql://"),
    **{f"postgresql://u:alpha@h/d{end}": "quotes, white space or a line break" for end in '"\n'},
    **{
        f"postgresql://u:alpha@h/d?{wrong}": f"libpq has no parameter {says}"
        for wrong, says in {
            "pasword=bravo": "'pasword' (did you mean 'password'?)",
            "schema=bravo": "'schema': name the tables",
            "pgbouncer=true": "'pgbouncer': leave it",
            "connection_limit=1": "'connection_limit'",
            "statement_timeout=1": f"'statement_timeout': set {TIMEOUT}",
        }.items()
    },
}


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_refused_by_what_is_wrong_and_not_shown(url: str) -> None:
    for name in (READ_URL, WRITE_URL):
        line = one_line(run("backlog", **{name: url}), code=2)
        assert f"{name} is not a usable URL: " in line
        assert MALFORMED[url] in line
    with pytest.raises(InputError) as caught:
        check_url(url, "THE_URL")
    assert caught.value.__cause__ is caught.value.__context__ is None  # what a notebook would show


def test_an_error_in_a_notebook_shows_no_credential_in_any_of_its_causes(locked: Url) -> None:
    """Nor is a colon in a password a mistake."""
    assert conninfo_to_dict(check_url("postgresql://u:al:pha@h/db", "URL"))["password"] == "al:pha"
    for url in (locked("alpha:bravo"), UNREACHABLE["a closed port"].format("alpha%3Abravo")):
        queue = Queue(Database(url), pipeline.load())
        with pytest.raises(DatabaseError) as caught:
            queue.backlog()
        error: BaseException | None = caught.value
        while error:
            assert not words(str(error) + repr(error))
            error = error.__cause__ or error.__context__
        assert not words(repr(queue))


def test_a_password_that_the_server_repeats_is_blotted_out(bench: Bench) -> None:
    bench.track("track", "audio_ready")
    bench.sql(f"""
        CREATE FUNCTION fail() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no dblink with password={PASSWORD.replace("%", "%%")}'; END $$
    """)
    tracks_as_view(bench, "coalesce(nullif(stage, stage), fail())")
    url = f"{bench.url}{'&' if '?' in bench.url else '?'}password={quote(PASSWORD, safe='')}"
    assert "no dblink with password=***" in one_line(run("backlog", **{READ_URL: url}))


UNFIT = {
    "ALTER TABLE tracks RENAME TO track": "tracks.table: no table 'tracks'.*did you mean 'track'",
    "ALTER TABLE audio_tasks ALTER next_retry_at TYPE timestamp": (
        "tasks.next_retry_at.*expected timestamp with time zone"
    ),
    "ALTER TABLE tracks DROP CONSTRAINT tracks_stage_check, ADD CHECK (stage IN ('lyric', 'a'))": (
        "public.tracks allows no stage 'lyrics_acquired', expected one of lyric, a"
    ),
}


@pytest.mark.parametrize("change", UNFIT)
def test_a_table_that_does_not_fit(bench: Bench, change: str) -> None:
    bench.sql(change)
    assert re.search(UNFIT[change], one_line(run("backlog", **{READ_URL: bench.url}), code=2))


def test_a_read_that_takes_too_long_and_a_bad_timeout(bench: Bench) -> None:
    short = {READ_URL: bench.url, TIMEOUT: "0.1s"}
    bench.track("track", "audio_ready")
    tracks_as_view(bench, "CASE WHEN pg_sleep(60) IS NOT NULL THEN stage END")
    line = one_line(run("missing", **short))
    assert "canceling statement due to statement timeout (at most 0.1 s)" in line
    line = one_line(run("backlog", **{READ_URL: bench.url, TIMEOUT: "60"}), code=2)
    assert "expected a duration such as 90s" in line


def test_what_a_transaction_sets_is_in_force_whatever_the_server_has(bench: Bench) -> None:
    """The stricter timeout of the server's and our own."""
    name = bench.connection.info.dbname

    def shown(setting: str) -> str:
        with Database(bench.url).read() as moment:
            return str(moment.connection.scalar(sa.text(f"SHOW {setting}")))

    bench.sql(f"ALTER DATABASE {name} SET jit = on")
    assert (shown("jit"), shown("application_name")) == ("off", "queue-insights")
    for at_server, in_force in (("150ms", "150ms"), ("10min", "1min"), ("0", "1min")):
        bench.sql(f"ALTER DATABASE {name} SET statement_timeout = '{at_server}'")
        assert shown("statement_timeout") == in_force


def test_our_variables_libpqs_or_a_service_name_the_database(bench: Bench, tmp_path: Path) -> None:
    bench.track("track", "audio_ready")
    settings = conninfo_to_dict(bench.url)
    lines = (f"{key}={value}\n" for key, value in settings.items())
    (tmp_path / "services").write_text("[queue]\n" + "".join(lines))
    service = {"PGSERVICEFILE": str(tmp_path / "services"), "PGSERVICE": "queue"}
    for variables in (
        {f"PG{'database' if k == 'dbname' else k}".upper(): v for k, v in settings.items()},
        service,
        {READ_URL: bench.url, WRITE_URL: "postgresql://nowhere.invalid/db", "PGHOST": "/nowhere"},
        {WRITE_URL: bench.url, "PGHOST": "/nowhere"},
    ):
        result = run("missing", "--format", "csv", **variables)
        assert result.stdout.splitlines()[1].startswith("track,Song track,audio_ready,align,")
    line = one_line(run("missing", **service | {"PGSERVICE": "nothing"}))
    assert 'definition of service "nothing" not found' in line
