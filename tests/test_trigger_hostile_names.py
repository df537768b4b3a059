"""Trigger and views on tables, columns, stages and tasks whose names would be SQL if unquoted."""

import psycopg.sql

from conftest import Bench
from queue_insights.ddl import trigger, views
from queue_insights.queue import Queue
from test_hostile_names import FIRST, MORE, SECOND, TRACK, WORK, bench, queue  # noqa: F401

# The digests of what commit 13f1c70 made of these names: its triggers are still to be found good.
DIGESTS = {"a": "f78419254be2", "b": "fd79e88715c2"}


def test_they_are_names(bench: Bench, queue: Queue) -> None:  # noqa: F811
    # The application's own trigger does not survive what was renamed.
    tracks = queue.schema.tracks
    table = psycopg.sql.Identifier(tracks.schema, tracks.name)
    bench.connection.execute(
        psycopg.sql.SQL("DROP TRIGGER tracks_set_updated_at ON {}").format(table)
    )
    trigger.install(queue)
    views.install(queue)
    assert trigger.verify(queue, prove=True) == []
    assert views.verify(queue) == []
    names = map(psycopg.sql.Identifier, (tracks.roles["stage"], tracks.roles["id"]))
    stage, id = names
    move = psycopg.sql.SQL("UPDATE {} SET {} = {} WHERE {} = {}")
    for number, to in ((3, MORE), (2, WORK)):
        values = map(psycopg.sql.Literal, (to, f"{TRACK}{number}"))
        bench.connection.execute(move.format(table, stage, next(values), id, next(values)))
    id = tracks.roles["id"]
    assert list(queue.tasks("pending", SECOND)[id]) == [f"{TRACK}3"]
    assert f"{TRACK}2" in list(queue.tasks("pending", FIRST)[id])
    assert bench.sql("SELECT count(*) FROM bait") == [(0,)]
    trigger.uninstall(queue)
    views.uninstall(queue)


def test_the_statements_are_those_of_earlier_versions(bench: Bench, queue: Queue) -> None:  # noqa: F811
    up = trigger.generate(queue).up
    assert f'"sql": "{DIGESTS[bench.variant]}"' in up


def test_the_printed_migrations_run_as_plain_text(bench: Bench, queue: Queue) -> None:  # noqa: F811
    for module in (trigger, views):
        text = module.generate(queue).text()
        bench.connection.execute(text.encode())
        assert module.verify(queue) == []
        down = [line.removeprefix("--down ") for line in text.split("\n") if line[:6] == "--down"]
        bench.connection.execute("\n".join(down).encode())
        assert module.verify(queue) != []
