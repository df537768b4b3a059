"""A queue of jobs that nobody knows, letters, in a database of its own, for tests."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conftest import Url, database
from operating import command
from queue_insights import pipeline
from queue_insights.database import Database
from queue_insights.queue import Queue

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

    def sql(self, statement: str, *values: Any) -> psycopg.Cursor[Any]:
        return self.connection.execute(statement, values or None)

    def add(self, sort: str, state: str, **columns: Any) -> int:
        names = ", ".join(["sort", "state", *columns])
        values = [sort, state, *columns.values()]
        places = ", ".join(["%s"] * len(values))
        row = self.sql(f"INSERT INTO letter ({names}) VALUES ({places}) RETURNING id", *values)
        return int(next(row)[0])

    def said(self, line: str, text: str = FILE + RETRY, code: int = 0) -> list[str]:
        """The lines of a command on that pipeline file, which ends with *code*."""
        self.file.write_text(text, "utf-8")
        result = command(self.url, *shlex.split(line), "--pipeline", str(self.file))
        assert result.exit_code == code, result.output
        return result.output.splitlines()

    def refused(self, line: str, text: str = FILE + RETRY, code: int = 2) -> str:
        lines = self.said(line, text, code)
        assert len(lines) == 1, lines
        return lines[0]

    def rows(self) -> list[Any]:
        return self.sql("SELECT letter::text FROM letter ORDER BY id").fetchall()


@contextmanager
def office(server: Url, folder: Path) -> Iterator[Letters]:
    with database(server) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute(TABLE)
        yield Letters(url, connection, folder / "letters.yaml")


@pytest.fixture
def letters(server: Url, tmp_path: Path) -> Iterator[Letters]:
    with office(server, tmp_path) as made:
        yield made
