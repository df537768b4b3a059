"""Connections: where they come from, how a read is kept read-only, and what errors mean."""

import contextlib
import copy
import os
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict

from queue_insights.errors import DatabaseError, InputError
from queue_insights.pipeline import nearest, parse_duration

READ_URL = "QUEUE_INSIGHTS_URL"
WRITE_URL = "QUEUE_INSIGHTS_WRITE_URL"
TIMEOUT = "QUEUE_INSIGHTS_STATEMENT_TIMEOUT"
LIBPQ = ("PGSERVICE", "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER")

_URL = re.compile(r"postgres(?:ql)?(?:\+psycopg)?://(?:[^@/?#\s]*@)?[^@\s]*")
_SCHEME = re.compile(r"(?!postgres(?:ql)?(?:\+psycopg)?://)([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# What other programs take in a URL, and where we take it.
_ELSEWHERE = {
    "schema": "name the tables with their schema in the pipeline file",
    "search_path": "options=-csearch_path%3DNAME",
    "statement_timeout": f"set {TIMEOUT}",
    **dict.fromkeys(("pgbouncer", "connection_limit", "pool_timeout"), "leave it out"),
}

# What every transaction sets for itself, so that no answer depends on the settings of a server, a
# database, a role or the environment, and a pooler keeps nothing of it.
SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    # How values are written as text: what an action records goes back exactly.
    **{"bytea_output": "hex", "extra_float_digits": "1", "xmloption": "content"},
    **{"lc_monetary": "C", "array_nulls": "on"},
    # How our own SQL is read, and the catalogue's names and expressions are written.
    **{"standard_conforming_strings": "on", "quote_all_identifiers": "off"},
    "row_security": "off",  # a policy that would hide rows becomes an error, not a wrong number
    "jit": "off",  # to compile one of our plans takes longer than to run it
}
_SETTLE = sa.text("""
    SELECT set_config(name, CASE WHEN name = 'statement_timeout' AND :reads THEN
             CASE WHEN current_setting(name)::interval BETWEEN '1 ms' AND value::interval
                  THEN current_setting(name) ELSE value END
             ELSE value END, true)
    FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS setting (name, value)
""")
_MOMENT = sa.text("""
    SELECT now() AS as_of,
           CASE WHEN NOT pg_is_in_recovery() THEN NULL
                WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())
           END::float8 AS replay_lag_seconds
""")

Result = TypeVar("Result")


def settle(connection: sa.Connection, **limits: str) -> None:
    """Set SETTINGS for the transaction at hand, and its *limits*: what it may wait for or hold.

    Where the server, the role or PGOPTIONS allow a read less time, that is kept.
    """
    chosen = SETTINGS | limits
    reads = "lock_timeout" not in limits
    values = {"names": list(chosen), "values": list(chosen.values()), "reads": reads}
    connection.execute(_SETTLE, values)


def script(sql: str, timeout: timedelta) -> str:
    """A transaction for psql that reads as ours do: read only, SETTINGS, then the query *sql*."""
    chosen = {"statement_timeout": f"{timeout.total_seconds():g}s"} | SETTINGS
    settings = [f"SET LOCAL {name} = '{value}';" for name, value in chosen.items()]
    lines = "\n".join(" ".join(settings[i : i + 3]) for i in range(0, len(settings), 3))
    return f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n{lines}\n\n{sql};\n\nCOMMIT;"


def retried(
    work: Callable[[], Result],
    transient: Container[str],
    tries: int,
    between: Callable[[int], None],
) -> Result:
    """What *work* returns, tried again while it fails with one of the *transient* SQLSTATEs
    (``lost`` stands for a connection that is gone), at most so many *tries*. *between* is told
    the number of each try that failed, and waits."""
    for attempt in range(tries - 1):
        try:
            return work()
        except DatabaseError as error:
            if error.sqlstate not in transient and not (error.lost and "lost" in transient):
                raise
        between(attempt)
    return work()


class Unheld:
    """``count``: how many times that Python cannot hold, such as infinity or 44 BC, were read as
    None by now."""

    count = 0


def _lenient(strict: Any) -> type[Loader]:
    class Lenient(Loader):
        format = strict.format

        def __init__(self, oid: int, context: Any = None):
            super().__init__(oid, context)
            self._load = strict(oid, context).load

        def load(self, data: Any) -> Any:
            try:
                return self._load(data)
            except psycopg.DataError:
                Unheld.count += 1
                return None

    return Lenient


_TIMES = {
    name: [
        _lenient(psycopg.adapters.get_loader(psycopg.adapters.types[name].oid, format))
        for format in psycopg.pq.Format
    ]
    for name in ("date", "time", "timetz", "timestamp", "timestamptz", "interval")
}


@dataclass(frozen=True)
class Moment:
    """One read transaction: its connection, its ``now()`` (UTC), and a standby's lag."""

    connection: sa.Connection
    as_of: datetime
    replay_lag_seconds: float | None


def environment() -> tuple[str, str] | None:
    """The conninfo for reads and for writes that the environment names, or None.

    ``QUEUE_INSIGHTS_URL`` and ``QUEUE_INSIGHTS_WRITE_URL``, else libpq's own variables.
    """
    read, write = os.environ.get(READ_URL), os.environ.get(WRITE_URL)
    if read or write:
        read = check_url(read or write or "", READ_URL if read else WRITE_URL)
        return read, check_url(write, WRITE_URL) if write else read
    return ("", "") if any(os.environ.get(name) for name in LIBPQ) else None


def forget_environment() -> None:
    """Make this process, and those it starts, see no database named in the environment."""
    for name in (READ_URL, WRITE_URL, *LIBPQ):
        os.environ.pop(name, None)


def check_url(url: str, source: str) -> str:
    """*url* as libpq takes it. Raises InputError, which does not repeat it, for a malformed one."""
    bare = url.strip().strip("\"'").strip()
    wrong = "expected postgresql://user@host:5432/database, "
    wrong += "with @ : / ? # % in a user name or password percent-encoded"
    if _URL.fullmatch(bare) and bare != url:
        wrong = "it has quotes, white space or a line break around it: give it without"
    elif scheme := _SCHEME.match(bare):
        wrong = f"it begins with {scheme[0]}, expected postgresql://"
    elif _URL.fullmatch(url):
        url = re.sub(r"^postgres(ql)?\+psycopg:", "postgresql:", url)
        known = {keyword.decode() for keyword, *_ in psycopg.pq.Conninfo.get_defaults()} | {"ssl"}
        given = [part.partition("=")[0] for part in url.partition("?")[2].split("&") if part]
        with contextlib.suppress(psycopg.ProgrammingError, ValueError):
            port = conninfo_to_dict(url).get("port") or ""
            # postgresql://user:password, without a host, makes a port of the password.
            [int(number or 0) for number in str(port).split(",")]
            return url
        if unknown := [name for name in given if name not in known]:
            name = unknown[0]
            hint = f": {_ELSEWHERE[name]}" if name in _ELSEWHERE else nearest(name, known)
            wrong = f"libpq has no parameter {name!r}{hint}"
    raise InputError(f"{source} is not a usable URL: {wrong}")


class Database:
    """A queue's server: read-only transactions on *url*, writing ones on *write_url*.

    Both are conninfo strings for libpq. Nothing is kept open between transactions.
    """

    def __init__(self, url: str, write_url: str | None = None):
        self._url = url
        self._write_url = url if write_url is None else write_url
        self._engine = _engine(self._url)
        self._write_engine = _engine(self._write_url)
        self._kept_engine = _engine(self._write_url, sa.QueuePool, pool_size=1, max_overflow=-1)
        self.timeout = parse_duration(os.environ.get(TIMEOUT, "60s"), TIMEOUT)

    @property
    def name(self) -> str:
        """``database on host``, without user or password, for titles and messages."""
        return describe(self._url)

    @property
    def write_name(self) -> str:
        """As ``name``, of the server that actions write to."""
        return describe(self._write_url)

    @property
    def separate_writes(self) -> bool:
        """Whether actions have a URL of their own."""
        return self._write_url != self._url

    @contextlib.contextmanager
    def read(self, *, primary: bool = False) -> Iterator[Moment]:
        """One REPEATABLE READ, READ ONLY transaction; *primary* reads where actions write.

        Raises DatabaseError, in one line, for whatever the server or the network refuses.
        """
        engine = self._write_engine if primary else self._engine
        url = self._write_url if primary else self._url
        with translated(url, self.timeout), engine.connect() as connection:
            connection = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            limit = f"{self.timeout.total_seconds() * 1000:.0f}ms"
            settle(connection, statement_timeout=limit, idle_in_transaction_session_timeout="15min")
            yield Moment(connection, *connection.execute(_MOMENT).one())

    @contextlib.contextmanager
    def write(
        self, lock: str = "500ms", statement: str = "30s", idle: str = "2s"
    ) -> Iterator[sa.Connection]:
        """One READ COMMITTED transaction that may write: for actions, trigger and views only.

        *lock* and *statement* are how long it waits for a lock and runs a statement; *idle* is
        how long the server lets a frozen process keep what it has locked.
        """
        with translated(self._write_url, self.timeout), self._write_engine.connect() as connection:
            connection = connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                limits = {"lock_timeout": lock, "statement_timeout": statement}
                settle(connection, **limits, idle_in_transaction_session_timeout=idle)
                yield connection

    @contextlib.contextmanager
    def kept_open(self) -> Iterator["Database"]:
        """The same database, whose writing transactions share one connection until the block ends
        (a new one where it is lost): for many short transactions in a row."""
        kept = copy.copy(self)
        kept._write_engine = self._kept_engine
        try:
            yield kept
        finally:
            self._kept_engine.dispose()


def _engine(url: str, pool: type[sa.Pool] = sa.NullPool, **options: int) -> sa.Engine:
    def connect() -> psycopg.Connection[Any]:
        given = conninfo_to_dict(url).get("connect_timeout")
        timeout = given or os.environ.get("PGCONNECT_TIMEOUT") or 10
        connection = psycopg.connect(
            url,
            application_name="queue-insights",
            connect_timeout=timeout,
            client_encoding="utf8",
            # Statements prepared on one server connection are unknown on a pooler's next one.
            prepare_threshold=None,
        )
        for name, loaders in _TIMES.items():
            for loader in loaders:
                connection.adapters.register_loader(name, loader)
        return connection

    return sa.create_engine("postgresql+psycopg://", creator=connect, poolclass=pool, **options)


def describe(url: str) -> str:
    """``database on host``: what a conninfo names, without user or password."""
    given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value}
    defaults = psycopg.pq.Conninfo.get_defaults()  # the environment's among them
    settings = {each.keyword.decode(): (each.val or b"").decode() for each in defaults} | given
    if settings["service"] and "host" not in given:
        return f"service {settings['service']}"
    host, port = settings["host"] or settings["hostaddr"], settings["port"]
    where = "local socket" if not host or host.startswith(("/", "@")) else host
    database = settings["dbname"] or settings["user"]
    return f"{database} on {where}{'' if port == '5432' else ':' + port}"


@contextlib.contextmanager
def translated(url: str, timeout: timedelta) -> Iterator[None]:
    """Turn what psycopg and SQLAlchemy raise into a DatabaseError of one line."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        _raise(error.orig if isinstance(error.orig, psycopg.Error) else error, url, timeout)
    except psycopg.Error as error:
        _raise(error, url, timeout)


def _raise(error: BaseException, url: str, timeout: timedelta) -> NoReturn:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        text = error.diag.message_primary
    given = [conninfo_to_dict(url).get(name) for name in ("password", "sslpassword")]
    secrets = {str(secret) for secret in (*given, os.environ.get("PGPASSWORD")) if secret}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    state = getattr(error, "sqlstate", None) or ""
    lost = isinstance(error, psycopg.OperationalError) and not state
    translation = DatabaseError(f"{describe(url)}: {text}{_advice(state, text, lost, timeout)}")
    translation.sqlstate = state
    translation.lost = lost or state.startswith(("08", "57P", "25P03"))
    raise translation from error


# What a server says when it turns a connection away: that comes without its SQLSTATE.
_REFUSALS = {
    "authentication failed": "28P01",
    "no password supplied": "28P01",
    'role "': "28P01",
    "pg_hba.conf": "28000",
    'database "': "3D000",
    "too many clients": "53300",
    "connection slots are reserved": "53300",
    "the database system is": "57P03",
}


def _advice(state: str, text: str, lost: bool, timeout: timedelta) -> str:
    if lost:
        state = next((code for said, code in _REFUSALS.items() if said in text), "")
        if not state:
            return f"; check that the server runs and that {READ_URL} (or PGHOST, PGPORT) names it"
    if state == "57014" and "statement timeout" in text:
        return (
            f" (at most {timeout.total_seconds():g} s); set {TIMEOUT}=5min, see `queue-insights "
            "doctor` for missing indexes, or wait for whoever has locked the table (pg_locks)"
        )
    if state == "42501" and "row-level security" in text:
        return "; it would hide rows: ask for BYPASSRLS, or use a role that owns the table"
    advice = {
        "22021": "; a text in the tables is not in UTF-8: mend that row first",
        "28000": "; the server's pg_hba.conf decides who may connect, whence and by what sslmode",
        "28": "; check the user and password in the URL, PGPASSWORD or ~/.pgpass",
        "3D": f"; check the database name in {READ_URL} or PGDATABASE",
        "42501": f"; ask the owner for {'USAGE' if 'schema' in text else 'SELECT'} on it "
        "(`queue-insights doctor` lists what is missing)",
        "42P01": "; check the table names in the pipeline file, and the search_path",
        "42703": "; the table has changed: run the command again",
        "25006": f"; set {WRITE_URL} to the primary",
        "53100": "; the server needs room on its disk first",
        "53300": "; wait for other sessions to end, or connect through a pooler",
        "55P03": "; somebody holds a lock on it: run again when their transaction has ended",
        "57P": "; the server is restarting: run the command again",
        "40001": "; run the command again",
    }
    return next((hint for prefix, hint in advice.items() if state.startswith(prefix)), "")
