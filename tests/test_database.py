"""Connections: what goes wrong is one line that says what to do, and never a credential."""

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from conftest import Bench, Url
from queue_insights import demo, pipeline
from queue_insights.cli import main
from queue_insights.database import READ_URL, TIMEOUT, WRITE_URL, Database, check_url, environment
from queue_insights.errors import DatabaseError, InputError
from queue_insights.queue import Queue

# No two of its words are apart from a character that means something in a URL.
WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf")
PASSWORD = "alpha@bravo:charlie/delta?echo#foxtrot%golf"


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run a command on the database that the variables name; none of WORDS may ever be printed."""

    def run(*arguments: str, **variables: str) -> Result:
        result = CliRunner(env=variables).invoke(main, arguments)
        assert not set(WORDS) & set(words(result.output)), result.output
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        return result

    return run


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
    folder = tempfile.mkdtemp(prefix="queue-insights-test-", dir="/var/tmp")
    try:
        with demo.EmbeddedServer(folder) as server:
            with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
                admin.execute("CREATE ROLE locked LOGIN SUPERUSER PASSWORD '" + PASSWORD + "'")
                admin.execute("CREATE ROLE bare LOGIN")
                rules = "local all locked scram-sha-256\nlocal all bare reject\nlocal all all trust"
                (hba,) = admin.execute("SHOW hba_file").fetchone() or ("",)
                copy = psycopg.sql.SQL("COPY (SELECT unnest({}::text[])) TO {}")
                admin.execute(copy.format(rules.splitlines(), hba))
                demo.create_schema(admin, "a")
            server.stop()
            server.start()
            url = server.url("postgres")
            yield lambda password: url.replace(
                "postgres@", f"locked:{quote(password, safe='')}@", 1
            )
    finally:
        shutil.rmtree(folder)


def test_any_password_works_when_percent_encoded(locked: Url, run: Callable[..., Result]) -> None:
    result = run("backlog", **{READ_URL: locked(PASSWORD)})
    assert result.exit_code == 0, result.stderr
    assert "audio_ready" in result.stdout


@pytest.mark.parametrize("format", ["{}", "{}&application_name=x"])
def test_a_password_in_the_query_or_the_environment_works(
    locked: Url, run: Callable[..., Result], format: str
) -> None:
    bare = locked("").replace("locked:@", "locked@")
    inside = format.format(f"{bare}&password={quote(PASSWORD, safe='')}")
    assert run("backlog", **{READ_URL: inside}).exit_code == 0
    assert run("backlog", **{READ_URL: bare, "PGPASSWORD": PASSWORD}).exit_code == 0


@pytest.mark.parametrize("wrong", [PASSWORD[:-1], "alphagolf", ""])
def test_a_wrong_password(locked: Url, run: Callable[..., Result], wrong: str) -> None:
    line = one_line(run("backlog", **{READ_URL: locked(wrong)}))
    assert "password" in line
    assert "check the user and password in the URL, PGPASSWORD or ~/.pgpass" in line


def test_a_rejected_role(locked: Url, run: Callable[..., Result]) -> None:
    url = locked(PASSWORD).replace("//locked:", "//bare:")
    line = one_line(run("backlog", **{READ_URL: url}))
    assert "the server's pg_hba.conf decides who may connect" in line


def test_an_unknown_role(locked: Url, run: Callable[..., Result]) -> None:
    url = locked(PASSWORD).replace("//locked:", "//nobody:")
    line = one_line(run("backlog", **{READ_URL: url}))
    assert 'role "nobody" does not exist; check the user and password' in line


def test_an_unknown_database(locked: Url, run: Callable[..., Result]) -> None:
    url = locked(PASSWORD).replace("/postgres?", "/nowhere?")
    line = one_line(run("backlog", **{READ_URL: url}))
    assert 'database "nowhere" does not exist; check the database name' in line


UNREACHABLE = {
    "a closed port": "postgresql://u:{}@127.0.0.1:1/db",
    "no such host": "postgresql://u:{}@nohost.invalid/db",
    "no such socket": "postgresql://u:{}@/db?host=%2Fnowhere",
    "two servers": "postgresql://u:{}@127.0.0.1:1,127.0.0.1:2/db",
    "a password in the query": "postgresql://127.0.0.1:1/db?user=u&password={}",
    "through sqlalchemy": "postgresql+psycopg://u:{}@127.0.0.1:1/db",
}


@pytest.mark.parametrize("url", UNREACHABLE.values(), ids=UNREACHABLE)
def test_an_unreachable_server(run: Callable[..., Result], url: str) -> None:
    line = one_line(run("backlog", **{READ_URL: url.format(quote(PASSWORD, safe=""))}))
    assert line.startswith("queue-insights: db on ")
    assert "check that the server runs and that QUEUE_INSIGHTS_URL" in line


def test_a_server_that_never_answers(run: Callable[..., Result]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:alpha@127.0.0.1:{silent.getsockname()[1]}/db?connect_timeout=2"
        line = one_line(run("audit", **{READ_URL: url}))
    assert "check that the server runs" in line


MALFORMED = [
    f"postgresql://u:{PASSWORD}@127.0.0.1:1/db",
    *(f"postgresql://u:alpha{c}bravo@127.0.0.1:1/db" for c in "@/?#% "),
    "postgresql://u:alpha%zzbravo@127.0.0.1:1/db",
    "postgresql://alpha:bravo",  # a user and a password, and no host
    "postgresql://u@127.0.0.1:1/db?pasword=alpha",
    "mysql://u:alpha@127.0.0.1/db",
    "host=127.0.0.1 password=alpha",
    "u:alpha@127.0.0.1/db",
    "alpha",
    "postgresql://u:alpha\nbravo@127.0.0.1/db",
]


@pytest.mark.parametrize("name", [READ_URL, WRITE_URL])
@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url(run: Callable[..., Result], url: str, name: str) -> None:
    line = one_line(run("backlog", **{name: url}), code=2)
    assert f"{name} is not a usable URL: expected postgresql://user@host:5432/database" in line
    assert "percent-encoded" in line


@pytest.mark.parametrize("url", MALFORMED)
def test_nor_does_the_error_carry_it_into_a_notebook(url: str) -> None:
    with pytest.raises(InputError) as caught:
        check_url(url, "THE_URL")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_colon_in_a_password_is_no_mistake() -> None:
    url = check_url("postgresql://u:al:pha@h/db", "URL")
    assert conninfo_to_dict(url)["password"] == "al:pha"


def test_an_error_in_a_notebook_shows_no_credential_in_any_of_its_causes(locked: Url) -> None:
    for url in (locked("alpha:bravo"), UNREACHABLE["a closed port"].format("alpha%3Abravo")):
        with pytest.raises(DatabaseError) as caught:
            Queue(Database(url), pipeline.load()).backlog()
        error: BaseException | None = caught.value
        while error:
            assert not words(str(error) + repr(error))
            error = error.__cause__ or error.__context__
        assert not words(repr(Queue(Database(url), pipeline.load())))


def test_a_password_that_the_server_repeats_is_blotted_out(
    bench: Bench, run: Callable[..., Result]
) -> None:
    bench.track("track", "audio_ready")
    bench.sql(f"""
        CREATE FUNCTION fail() RETURNS text LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no dblink with password={PASSWORD.replace("%", "%%")}'; END $$;
        ALTER TABLE tracks RENAME TO tracks_table;
        CREATE VIEW tracks AS SELECT spotify_track_id, title, updated_at,
            coalesce(nullif(stage, stage), fail()) AS stage FROM tracks_table
    """)
    url = f"{bench.url}{'&' if '?' in bench.url else '?'}password={quote(PASSWORD, safe='')}"
    assert "no dblink with password=***" in one_line(run("backlog", **{READ_URL: url}))


def test_no_table(bench: Bench, run: Callable[..., Result]) -> None:
    bench.sql("ALTER TABLE tracks RENAME TO track")
    line = one_line(run("backlog", **{READ_URL: bench.url}), code=2)
    assert "tracks.table: no table 'tracks'" in line
    assert "did you mean 'track'?" in line
    assert "check the file, the database name and search_path" in line


def test_no_column(bench: Bench, run: Callable[..., Result]) -> None:
    bench.sql("ALTER TABLE audio_tasks RENAME next_retry_at TO next_try_at")
    line = one_line(run("backlog", **{READ_URL: bench.url}), code=2)
    assert "tasks.next_retry_at: table 'audio_tasks' has no column 'next_retry_at'" in line
    assert "did you mean 'next_try_at'?" in line


def test_a_column_of_another_type(bench: Bench, run: Callable[..., Result]) -> None:
    bench.sql("ALTER TABLE audio_tasks ALTER next_retry_at TYPE timestamp")
    line = one_line(run("backlog", **{READ_URL: bench.url}), code=2)
    assert "tasks.next_retry_at" in line
    assert "expected timestamp with time zone" in line


def test_no_unique_key(bench: Bench, run: Callable[..., Result]) -> None:
    key = {"a": "audio_tasks_spotify_track_id_task_type_key", "b": "audio_tasks_subject_task_key"}
    bench.sql(f"ALTER TABLE audio_tasks DROP CONSTRAINT {key[bench.variant]}")
    line = one_line(run("backlog", **{READ_URL: bench.url}), code=2)
    assert "no unique key on (spotify_track_id, task_type)" in line


def test_a_stage_that_the_table_does_not_allow(bench: Bench, tmp_path: Path) -> None:
    text = (pipeline.shipped("params") / "pipelines" / "karaoke.yaml").read_text()
    (tmp_path / "file.yaml").write_text(text.replace("audio_ready", "audio_redy"))
    queue = Queue(Database(bench.url), pipeline.load(tmp_path / "file.yaml"))
    with pytest.raises(InputError, match=r"no stage 'audio_redy'.*did you mean 'audio_ready'\?"):
        queue.backlog()


@pytest.fixture
def reader(bench: Bench) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = "reader_" + bench.url.split("/test_")[1][:12]
    bench.sql(f"CREATE ROLE {name} LOGIN")
    yield name
    bench.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("granted", ["tracks", "audio_tasks"])
def test_no_privilege(bench: Bench, reader: str, run: Callable[..., Result], granted: str) -> None:
    bench.sql(f"GRANT SELECT ON {granted} TO {reader}")
    refused = {"tracks": "audio_tasks", "audio_tasks": "tracks"}[granted]
    line = one_line(run("backlog", **{READ_URL: as_role(bench.url, reader)}))
    assert f"permission denied for table {refused}; ask the owner for SELECT on it" in line


def test_select_on_both_tables_is_all_that_reads_need(
    bench: Bench, reader: str, run: Callable[..., Result]
) -> None:
    bench.sql(f"GRANT SELECT ON tracks, audio_tasks TO {reader}")
    for read in ("backlog", "audit", "missing", "upcoming", "tasks", "orphans"):
        assert run(read, **{READ_URL: as_role(bench.url, reader)}).exit_code == 0


def as_role(url: str, role: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}options=-crole%3D{role}"


def test_a_table_that_somebody_locked(bench: Bench, run: Callable[..., Result]) -> None:
    with psycopg.connect(bench.url) as other:
        other.execute("LOCK TABLE tracks IN ACCESS EXCLUSIVE MODE")
        line = one_line(run("backlog", **{READ_URL: bench.url, TIMEOUT: "0.1s"}))
    assert "canceling statement due to statement timeout (at most 0.1 s)" in line
    assert "set QUEUE_INSIGHTS_STATEMENT_TIMEOUT=5min" in line


def test_a_read_that_takes_too_long(bench: Bench, run: Callable[..., Result]) -> None:
    bench.track("track", "audio_ready")
    bench.sql("""
        ALTER TABLE tracks RENAME TO tracks_table;
        CREATE VIEW tracks AS SELECT spotify_track_id, title, updated_at,
            CASE WHEN pg_sleep(60) IS NOT NULL THEN stage END AS stage FROM tracks_table
    """)
    line = one_line(run("missing", **{READ_URL: bench.url, TIMEOUT: "0.1s"}))
    assert "canceling statement due to statement timeout (at most 0.1 s)" in line


def test_a_bad_timeout(bench: Bench, run: Callable[..., Result]) -> None:
    line = one_line(run("backlog", **{READ_URL: bench.url, TIMEOUT: "60"}), code=2)
    assert "expected a duration such as 90s" in line


@pytest.mark.parametrize(
    ("at_server", "in_force"),
    [("150ms", "150ms"), ("1min", "1min"), ("10min", "1min"), ("0", "1min")],
)
def test_the_stricter_of_the_servers_and_our_own_timeout_is_in_force(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at_server: str, in_force: str
) -> None:
    def timeout() -> str:
        with Database(bench.url).read() as moment:
            return str(moment.connection.scalar(sa.text("SHOW statement_timeout")))

    bench.sql(
        f"ALTER DATABASE {bench.connection.info.dbname} SET statement_timeout = '{at_server}'"
    )
    assert timeout() == in_force
    bench.sql(f"ALTER DATABASE {bench.connection.info.dbname} RESET statement_timeout")
    monkeypatch.setenv("PGOPTIONS", f"-c statement_timeout={at_server}")
    assert timeout() == in_force


def test_a_read_says_who_it_is_and_is_read_only_and_repeatable(bench: Bench) -> None:
    bench.sql(f"ALTER DATABASE {bench.connection.info.dbname} SET jit = on")
    with Database(bench.url).read() as moment:

        def show(setting: str) -> object:
            return moment.connection.scalar(sa.text(f"SHOW {setting}"))

        assert show("application_name") == "queue-insights"
        assert show("transaction_read_only") == "on"
        assert show("transaction_isolation") == "repeatable read"
        assert show("jit") == "off"


def libpq(url: str) -> dict[str, str]:
    return {f"PG{key}".upper(): str(v) for key, v in conninfo_to_dict(url).items()}


def test_libpqs_variables_name_the_database(bench: Bench, run: Callable[..., Result]) -> None:
    bench.track("track", "audio_ready")
    names = {"PGDBNAME": "PGDATABASE"}
    variables = {names.get(name, name): value for name, value in libpq(bench.url).items()}
    result = run("missing", "--format", "csv", **variables)
    assert result.stdout.splitlines()[1].startswith("track,Song track,audio_ready,align,")


def test_pgservice_names_the_database(
    bench: Bench, run: Callable[..., Result], tmp_path: Path
) -> None:
    bench.track("track", "audio_ready")
    lines = (f"{key}={value}\n" for key, value in conninfo_to_dict(bench.url).items())
    (tmp_path / "services").write_text("[queue]\n" + "".join(lines))
    variables = {"PGSERVICEFILE": str(tmp_path / "services"), "PGSERVICE": "queue"}
    assert "Song track" in run("missing", **variables).stdout
    line = one_line(run("missing", **variables | {"PGSERVICE": "nothing"}))
    assert 'definition of service "nothing" not found' in line


def test_our_variables_go_before_libpqs_and_writes_default_to_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert environment() is None
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert environment() == ("", "")
    monkeypatch.setenv(READ_URL, "postgresql://replica/db")
    assert environment() == ("postgresql://replica/db",) * 2
    monkeypatch.setenv(WRITE_URL, "postgresql://primary/db")
    assert environment() == ("postgresql://replica/db", "postgresql://primary/db")
    monkeypatch.delenv(READ_URL)
    assert environment() == ("postgresql://primary/db",) * 2


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://u:alpha@h.example/db", "db on h.example"),
        ("postgresql://u:alpha@h.example:6543/db?password=bravo", "db on h.example:6543"),
        ("postgresql://u@/db?host=%2Frun%2Fpg", "db on local socket"),
        ("postgresql://[::1]:6543/db", "db on ::1:6543"),
        ("postgresql:///?service=x", "service x"),
    ],
)
def test_a_database_is_named_without_user_and_password(url: str, name: str) -> None:
    assert Database(url).name == name


def test_a_session_that_the_server_ends(bench: Bench) -> None:
    def ended() -> None:
        with bench.queue.snapshot() as moment:
            pid = moment.connection.scalar(sa.text("SELECT pg_backend_pid()"))
            bench.sql("SELECT pg_terminate_backend(%s)", pid)
            bench.queue.backlog()

    with pytest.raises(DatabaseError, match=r"terminating connection.*run the command again"):
        ended()
    assert bench.queue.backlog().total.sum() == 0
